"""A small client for tfopt and for TensorFlow Serving (gRPC): retries, deadlines, connections that are kept.

    from tfopt_client import Client

    with Client("grpc://host:8500") as client:        # or http://host:8501, grpcs://, https://
        outputs = client.predict({"x": np.float32([[1], [2]])}, model="m", deadline_s=2)

Needs numpy, protobuf and hpack; no TensorFlow, no grpcio, nothing of the server.
"""

from tfopt_client.client import Client
from tfopt_client.errors import PredictError
from tfopt_client.retry import Retry

__all__ = ["Client", "PredictError", "Retry"]
