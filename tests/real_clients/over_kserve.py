"""Run by KServe's Python: asks a server through both of KServe's clients and prints what they understood, as JSON.

python over_kserve.py BASE_URL RPC_ADDRESS
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, InferResponse
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput


def half(rows: list[list[float]], binary: bool) -> InferRequest:
    array = np.float32(rows)
    x = InferInput("x", list(array.shape), "FP32")
    x.set_data_from_numpy(array, binary_data=binary)
    wanted = [RequestedOutput("y", {"binary_data": binary})]
    return InferRequest("half", [x], request_id="a-1", request_outputs=wanted)


def words(binary: bool) -> InferRequest:
    inputs = []
    for name, array, datatype in (
        ("word", np.array(["one", "two"], object), "BYTES"),
        ("id", np.int64([1, 2]), "INT64"),
    ):
        one = InferInput(name, list(array.shape), datatype)
        one.set_data_from_numpy(array, binary_data=binary)
        inputs.append(one)
    return InferRequest("words", inputs)


def understood(answer: InferResponse) -> dict[str, Any]:
    outputs = {o.name: [o.datatype, [v.decode() if isinstance(v, bytes) else v for v in o.as_numpy().ravel().tolist()]]
               for o in answer.outputs}  # fmt: skip
    return {"id": answer.id, "model": answer.model_name, "version": answer.model_version, "outputs": outputs}


async def refused(call: Any) -> str:
    try:
        await call
    except Exception as error:
        details = getattr(error, "details", None)
        return str(details() if callable(details) else error)
    return ""


async def over_v2(client: InferenceRESTClient, url: str) -> dict[str, Any]:
    return {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model ready": await client.is_model_ready(url, "half"),
        "none ready": await client.is_model_ready(url, "none"),
        "half": [understood(await client.infer(url, half([[1], [5]], b), "half")) for b in (False, True)],
        "words": [understood(await client.infer(url, words(b), "words")) for b in (False, True)],
        "refused": await refused(client.infer(url, half([[1]], True), "none")),
    }


async def over_v1(client: InferenceRESTClient, url: str) -> dict[str, Any]:
    body = {"instances": [[1.0], [5.0]]}
    return {
        "predict": await client.infer(url, body, "half"),
        "explain": await client.explain(url, "half", body),
        "refused": await refused(client.infer(url, {"rows": []}, "half")),
    }


async def over_rpc(client: InferenceGRPCClient) -> dict[str, Any]:
    return {
        "live": await client.is_server_live(),
        "ready": await client.is_server_ready(),
        "model ready": await client.is_model_ready("half"),
        "half": [understood(await client.infer(half([[1], [5]], b))) for b in (False, True)],
        "words": [understood(await client.infer(words(True)))],
        "refused": await refused(client.infer(InferRequest("none", half([[1]], True).inputs))),
    }


async def main(url: str, rpc: str) -> None:
    logging.disable(logging.CRITICAL)  # the clients log what they raise
    found = {}
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        found["v2"] = await over_v2(client, url)
    async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
        found["v1"] = await over_v1(client, url)
    async with InferenceGRPCClient(rpc) as client:
        found["rpc"] = await over_rpc(client)
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
