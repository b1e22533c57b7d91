# SPDX-License-Identifier: Apache-2.0
"""Memory of a Dynamo worker as one end of a TransferJob, with `dynamo.nixl_connect` as it is.

    python3 dynamo_memory.py writable REGION SIZE     a job writes into this program's memory
    python3 dynamo_memory.py readable REGION SIZE     a job reads this program's memory

Makes the operation, writes its RdmaMetadata into the status of the MemoryRegion (of kind `external`), and waits until the
agent has told it that the transfer is complete: one operation serves one transfer. Runs in a pod whose service account may
patch `memoryregions/status`; elsewhere NIXL_TRANSFER_API, _TOKEN_FILE, _CA_FILE and _NAMESPACE say what a pod finds by itself.
"""

import asyncio
import hashlib
import json
import os
import ssl
import sys
import urllib.request

import numpy
from dynamo.nixl_connect import Connector, Descriptor

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount/"
DEADLINE = 600


def setting(name, default):
    return os.environ.get(f"NIXL_TRANSFER_{name}", default)


def content(path):
    with open(path, encoding="utf-8") as file:
        return file.read().strip()


def publish(region, metadata):
    """Writes what stands in the region's status for the one transfer that it serves."""
    api = setting("API", "https://kubernetes.default.svc")
    namespace = setting("NAMESPACE", None) or content(ACCOUNT + "namespace")
    token = content(setting("TOKEN_FILE", ACCOUNT + "token"))
    trust = ssl.create_default_context(cafile=setting("CA_FILE", ACCOUNT + "ca.crt"))
    request = urllib.request.Request(
        f"{api}/apis/nixl-transfer.io/v1alpha1/namespaces/{namespace}/memoryregions/{region}/status",
        data=json.dumps({"status": {"rdmaMetadata": metadata}}).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/merge-patch+json"},
        method="PATCH",
    )
    with urllib.request.urlopen(request, context=trust, timeout=30) as answer:
        answer.read()


async def main(verb, region, size):
    memory = numpy.zeros(int(size), dtype=numpy.uint8)
    if verb == "readable":
        memory[:] = numpy.arange(memory.size, dtype=numpy.uint64) % 251
    connector = Connector()
    descriptor = Descriptor((memory.ctypes.data, memory.nbytes, "cpu", memory))
    make = connector.create_writable if verb == "writable" else connector.create_readable
    with await make(descriptor) as operation:
        publish(region, operation.metadata().model_dump_json())
        print("published", flush=True)
        await asyncio.wait_for(operation.wait_for_completion(), DEADLINE)
        print("complete", hashlib.sha256(memory).hexdigest(), flush=True)
    # NIXL's destructors can crash at the end of a process.
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
