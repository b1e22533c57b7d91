"""Stands in for the package `nixl`, which only chooses between NIXL's builds for CUDA 12 and 13 and needs PyTorch for that.
Here it is always `nixl_cu12`; host memory needs neither. The two modules that `dynamo.nixl_connect` imports are its own.
"""

import sys

from nixl_cu12 import _api, _bindings

sys.modules[f"{__name__}._api"] = _api
sys.modules[f"{__name__}._bindings"] = _bindings
