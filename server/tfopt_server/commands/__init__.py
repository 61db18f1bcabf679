"""The sub-commands of `tfopt`, one file each: `main(argv, environ) -> exit code`."""

COMMANDS = {
    "serve": "serve a model (the default)",
    "optimize": "optimize a model and write the plan",
    "report": "print what a plan decided, and why",
    "inspect": "show a SavedModel's signatures, operations and variables",
    "doctor": "check a SavedModel before it is deployed",
    "convert-tpu": "convert a SavedModel so that it serves on Cloud TPU",
    "warmup": "inspect, make or record warmup records",
    "predict": "ask a running server, with requests from a file",
    "healthcheck": "ask a server on this machine for its health: exit 0 or 1",
    "version": "print versions",
}
HELP = ("-h", "-help", "--help", "--helpfull")
