"""The Open Inference Protocol, version 2: what its REST and its gRPC face share.

Source: github.com/kserve/open-inference-protocol, and Triton's extensions for binary tensors and the model repository.
"""
