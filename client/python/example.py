# SPDX-License-Identifier: Apache-2.0
"""A pod that lends its memory: fills it, hands it over, and prints what becomes of it.

    python3 example.py SOCKET TOKEN_FILE REGION SIZE [TEXT]

Ends after the first transfer has finished. Prints one line of JSON per event, then the first bytes of the memory.
"""

import json
import sys

from nixl_transfer import Workload, shared_memory


def main(path, token_file, region, size, text=""):
    memory = shared_memory(int(size))
    memory[: len(text)] = text.encode()
    with open(token_file, encoding="utf-8") as file:
        token = file.read()
    with Workload(path, token) as agent:
        agent.hand_over(region, memory)
        print(json.dumps({"type": "ready", "pod": agent.welcome["pod"]}), flush=True)
        print(json.dumps(agent.next(timeout=600)), flush=True)
        agent.withdraw(region)
    print(bytes(memory[:32]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
