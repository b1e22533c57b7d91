{{/* Begin of all names. */}}
{{- define "nixl-transfer.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Name of a part: (list $ "operator"). */}}
{{- define "nixl-transfer.name" -}}
{{- printf "%s-%s" (include "nixl-transfer.fullname" (index . 0)) (index . 1) -}}
{{- end -}}

{{/* What selects the pods of a part: (list $ "operator"). Must not change between versions. */}}
{{- define "nixl-transfer.selector" -}}
app.kubernetes.io/name: {{ (index . 0).Chart.Name }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels of an object: (list $ "operator"). */}}
{{- define "nixl-transfer.labels" -}}
{{ include "nixl-transfer.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version | replace "+" "_" }}
{{- with (index . 0).Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Image of a part: (list $ "operator"). */}}
{{- define "nixl-transfer.image" -}}
{{- $values := (index . 0).Values -}}
{{- $image := (index $values (index . 1)).image -}}
{{- with $values.image.registry }}{{ . }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest -}}
@{{ $image.digest }}
{{- else -}}
:{{ $values.image.tag | default (index . 0).Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* What a container never needs, whichever it is. Capabilities that it does need: a list, each with its reason where it is given. */}}
{{- define "nixl-transfer.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
seccompProfile: {type: RuntimeDefault}
capabilities:
  drop: [ALL]
  {{- with . }}
  add: {{ toJson . }}
  {{- end }}
{{- end -}}

{{/* Documents of a text of several, as a YAML list under `documents`. */}}
{{- define "nixl-transfer.documents" -}}
documents:
{{- range regexSplit "(?m)^---\\s*$" . -1 }}
{{- with fromYaml . }}
- {{ toJson . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The part that a name in the files is about: nixl-transfer-operator is "operator". */}}
{{- define "nixl-transfer.part" -}}
{{- trimPrefix "nixl-transfer-" . -}}
{{- end -}}

{{/* Pull secrets, for a pod. */}}
{{- define "nixl-transfer.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end -}}

{{/* Rule of a NetworkPolicy: who may read metrics and probe: (list $ port). */}}
{{- define "nixl-transfer.metricsIngress" -}}
ports:
- {protocol: TCP, port: {{ index . 1 }}}
{{- with (index . 0).Values.networkPolicy.metricsFrom }}
from:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end -}}

{{/* Rule of a NetworkPolicy: to the API server, which no selector can name. No DNS: its address is in the environment. */}}
{{- define "nixl-transfer.apiServerEgress" -}}
ports:
{{- range .Values.networkPolicy.apiServerPorts }}
- {protocol: TCP, port: {{ . }}}
{{- end }}
{{- with .Values.networkPolicy.apiServerCidrs }}
to:
{{- range . }}
- ipBlock: {cidr: {{ . | quote }}}
{{- end }}
{{- end }}
{{- end -}}

{{/* Where the agent finds the launcher's socket, and pods the agent's. */}}
{{- define "nixl-transfer.launcherSocket" -}}/run/launcher/launcher.sock{{- end -}}
{{- define "nixl-transfer.workloadSocket" -}}/run/nixl-transfer/workload.sock{{- end -}}

{{/* The agent's configuration file (agent/src/config.rs). */}}
{{- define "nixl-transfer.agentConfig" -}}
{{- $agent := .Values.agent -}}
leaseNamespace: {{ .Release.Namespace }}
listen: {{ printf "%s:%d" .Values.listenAddress (int $agent.port) | quote }}
nixl:
  library: {{ $agent.nixl.library }}
  plugins: {{ $agent.nixl.plugins }}
network:
  devices: {{ toJson $agent.network.devices }}
slots: {{ $agent.slots }}
staging: {{ include "nixl-transfer.quantity" $agent.staging }}
warmWorkers: {{ $agent.warmWorkers }}
launcher:
  socket: {{ include "nixl-transfer.launcherSocket" . }}
memory:
  host: {{ include "nixl-transfer.quantity" $agent.memory.host }}
  gpu: {{ include "nixl-transfer.quantity" $agent.memory.gpu }}
  {{- if $agent.memory.cudaIpc }}
  cudaIpc: true
  {{- end }}
  {{- if $agent.memory.socket.enabled }}
  socket: {{ include "nixl-transfer.workloadSocket" . }}
  {{- end }}
volumes:
{{- $seen := dict }}
{{- range $agent.volumes }}
{{- if hasKey $seen .name }}{{ fail (printf "agent.volumes: %s is there twice; give each volume a name of its own" .name) }}{{ end }}
{{- $_ := set $seen .name true }}
- name: {{ .name }}
  path: /volumes/{{ .name }}
  readOnly: {{ .readOnly | default false }}
  allowedNamespaces: {{ toJson .allowedNamespaces }}
{{- else }} []
{{- end }}
{{- end -}}

{{/* Capabilities of control: a JSON list. Its files are root's, those of the volumes anybody's. */}}
{{- define "nixl-transfer.controlCapabilities" -}}
{{- $writes := false -}}
{{- range .Values.agent.volumes -}}{{- if not .readOnly -}}{{- $writes = true -}}{{- end -}}{{- end -}}
{{- if $writes -}}
["DAC_OVERRIDE","FOWNER","FSETID"]
{{- else if .Values.agent.volumes -}}
["DAC_READ_SEARCH"]
{{- else -}}
[]
{{- end -}}
{{- end -}}

{{/* Annotations of what exists while the release is being uninstalled only: weight. What failed stays, for its log. */}}
{{- define "nixl-transfer.cleanupHook" -}}
helm.sh/hook: pre-delete
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{/* A quantity as text: large numbers would become floating. */}}
{{- define "nixl-transfer.quantity" -}}
{{- if kindIs "string" . }}{{ . | quote }}{{ else }}{{ int64 . | quote }}{{ end -}}
{{- end -}}
