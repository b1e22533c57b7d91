// What the tools of GitOps make of an object: `health LUA CEL < object.json` prints {"kstatus", "lua", "cel"}. LUA is an Argo CD health
// check, CEL a file with the list of Flux's `healthCheckExprs`. The engines are those of the tools: kstatus of Flux and Helm 4, Flux's own
// evaluator, and gopher-lua with the libraries that Argo CD opens.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "health:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 3 {
		return fmt.Errorf("usage: health LUA CEL < object.json")
	}
	script, err := os.ReadFile(os.Args[1])
	if err != nil {
		return err
	}
	expressions, err := os.ReadFile(os.Args[2])
	if err != nil {
		return err
	}
	input, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	var object map[string]any
	if err := json.Unmarshal(input, &object); err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	var verdicts struct {
		Kstatus string `json:"kstatus"`
		Lua     string `json:"lua"`
		Cel     string `json:"cel"`
	}
	// kstatus wants whole numbers as such.
	typed := &unstructured.Unstructured{}
	if err := typed.UnmarshalJSON(input); err != nil {
		return err
	}
	result, err := status.Compute(typed)
	if err != nil {
		return fmt.Errorf("kstatus: %w", err)
	}
	verdicts.Kstatus = string(result.Status)
	if verdicts.Lua, err = byLua(string(script), object); err != nil {
		return fmt.Errorf("Lua: %w", err)
	}
	if verdicts.Cel, err = byCel(expressions, typed); err != nil {
		return fmt.Errorf("CEL: %w", err)
	}
	return json.NewEncoder(os.Stdout).Encode(verdicts)
}

// As Argo CD's util/lua: the object is the global `obj`, the answer a table with `status`.
func byLua(script string, object map[string]any) (string, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for _, library := range []struct {
		name string
		open lua.LGFunction
	}{{lua.LoadLibName, lua.OpenPackage}, {lua.BaseLibName, lua.OpenBase}, {lua.TabLibName, lua.OpenTable}} {
		protected := lua.P{Fn: state.NewFunction(library.open), NRet: 0, Protect: true}
		if err := state.CallByParam(protected, lua.LString(library.name)); err != nil {
			return "", err
		}
	}
	state.SetGlobal("obj", toLua(state, object))
	if err := state.DoString(script); err != nil {
		return "", err
	}
	table, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return "", fmt.Errorf("the script returns no table")
	}
	return table.RawGetString("status").String(), nil
}

func toLua(state *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case bool:
		return lua.LBool(value)
	case float64:
		return lua.LNumber(value)
	case string:
		return lua.LString(value)
	case []any:
		table := state.CreateTable(len(value), 0)
		for _, item := range value {
			table.Append(toLua(state, item))
		}
		return table
	case map[string]any:
		table := state.CreateTable(0, len(value))
		for key, item := range value {
			table.RawSetString(key, toLua(state, item))
		}
		return table
	}
	return lua.LNil
}

// As Flux's kustomize-controller: the library's evaluator with the expressions of one kind.
func byCel(text []byte, object *unstructured.Unstructured) (string, error) {
	var checks []kustomize.CustomHealthCheck
	if err := yaml.UnmarshalStrict(text, &checks); err != nil {
		return "", err
	}
	if len(checks) != 1 {
		return "", fmt.Errorf("%d checks instead of one", len(checks))
	}
	evaluator, err := cel.NewStatusEvaluator(&checks[0].HealthCheckExpressions)
	if err != nil {
		return "", err
	}
	result, err := evaluator.Evaluate(context.Background(), object)
	if err != nil {
		return "", err
	}
	return string(result.Status), nil
}
