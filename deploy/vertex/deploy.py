"""Uploads a SavedModel to Vertex AI on a tfopt image and deploys it: needs google-cloud-aiplatform and credentials.

    python deploy/vertex/deploy.py --project=P --region=us-central1 --image=us-central1-docker.pkg.dev/P/R/tfopt-cpu:1 \
        --artifact_uri=gs://BUCKET/m/1 [--accelerator_type=NVIDIA_L4] [--flag=--allow_precompilation ...]

The numbers that matter: Vertex restarts a container whose port is closed for about 40 s (tfopt opens it at once) and
sends no traffic until health is 200; a first start may compile as long as DEPLOYMENT_TIMEOUT_S. There is no startup
probe: the API lets it fail three times unless told otherwise, the SDK cannot tell it, and a model that compiles for
longer would be restarted for ever. Payloads are limited to 1.5 MB on shared and 10 MB on dedicated endpoints.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

HTTP_PORT, GRPC_PORT = 8080, 8500
DEPLOYMENT_TIMEOUT_S = 1800
MACHINES = {"": "n2-standard-4", "NVIDIA_TESLA_T4": "n1-standard-8", "NVIDIA_L4": "g2-standard-8"}


def upload_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of aiplatform.Model.upload."""
    return {
        "display_name": args.name,
        "artifact_uri": args.artifact_uri,
        "serving_container_image_uri": args.image,
        "serving_container_args": [f"--port={GRPC_PORT}", *args.flag],
        "serving_container_ports": [HTTP_PORT],
        "serving_container_grpc_ports": [GRPC_PORT],
        "serving_container_predict_route": "/v1/models/default:predict",
        "serving_container_health_route": "/v1/models/default",
        "serving_container_deployment_timeout": DEPLOYMENT_TIMEOUT_S,
    }


def deploy_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of Model.deploy. TPU machines (ct5lp-...) carry their accelerator in the machine's name."""
    found = {
        "machine_type": args.machine_type or MACHINES[args.accelerator_type],
        "min_replica_count": args.min_replicas,
        "max_replica_count": args.max_replicas,
        "traffic_percentage": args.traffic,
    }
    if args.accelerator_type:
        found |= {"accelerator_type": args.accelerator_type, "accelerator_count": 1}
    return found


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("project", "region", "image", "artifact_uri"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--name", default="tfopt")
    parser.add_argument("--flag", action="append", default=[], help="a flag of tfopt serve, repeated")
    parser.add_argument("--machine_type", default="")
    parser.add_argument("--accelerator_type", default="", choices=tuple(MACHINES))
    parser.add_argument("--min_replicas", type=int, default=1)
    parser.add_argument("--max_replicas", type=int, default=1)
    parser.add_argument("--traffic", type=int, default=100)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    from google.cloud import aiplatform

    aiplatform.init(project=args.project, location=args.region)
    model = aiplatform.Model.upload(**upload_arguments(args))
    endpoint = aiplatform.Endpoint.create(display_name=args.name, dedicated_endpoint_enabled=True)
    model.deploy(endpoint=endpoint, **deploy_arguments(args))
    print(endpoint.resource_name)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
