"""Stands in for PyTorch, which is gigabytes. `dynamo.nixl_connect` refuses to be imported without a module `torch`, and
then only asks whether what it was given is a `torch.Tensor`; NIXL's Python part asks the same. Here nothing ever is: the
interop tests give arrays of NumPy. Without a `torch.version`, the package `nixl` takes the build of NIXL that is there.
On a machine with GPUs the real PyTorch belongs in the place of this file.
"""


class Tensor:
    """No object is one of these."""
