"""The JSON documents that clients send and receive, as JSON Schema for the OpenAPI document."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
SWITCH: Schema = {"type": "boolean"}


def array(items: Schema) -> Schema:
    """A list of ``items``."""
    return {"type": "array", "items": items}


def reference(name: str) -> Schema:
    """The schema ``name`` of SCHEMAS."""
    return {"$ref": f"#/components/schemas/{name}"}


def record(required: dict[str, Schema], optional: dict[str, Schema] | None = None, **more: Any) -> Schema:
    """An object with these fields."""
    return {"type": "object", "properties": required | (optional or {}), "required": list(required), **more}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


_LIMITED: dict[str, Schema] = {
    "model": {**TEXT, "description": "the model's name; any name will do while only one model is served"},
    "max_tokens": {**WHOLE, "minimum": 1},
    "temperature": {**NUMBER, "minimum": 0, "maximum": 2, "description": "0: greedy; absent: sampled"},
    "top_p": NUMBER,
    "top_k": {**WHOLE, "description": "not OpenAI's"},
    "repetition_penalty": {**NUMBER, "description": "not OpenAI's"},
    "ignore_eos": {**SWITCH, "description": "not OpenAI's"},
    "n": {**WHOLE, "minimum": 1, "maximum": 128},
    "stop": {"anyOf": [TEXT, array(TEXT)]},
    "seed": WHOLE,
    "stream": {**SWITCH, "description": "server-sent events, the last one [DONE]"},
    "stream_options": record({}, {"include_usage": SWITCH}),
}
_USAGE = record({"prompt_tokens": WHOLE, "completion_tokens": WHOLE, "total_tokens": WHOLE})
_WORKER_GROUP = record(
    {
        "device": record({"deviceType": {"enum": ["cpu", "gpu"]}, "deviceId": {"anyOf": [WHOLE, TEXT]}}),
        "minWorkers": WHOLE,
        "maxWorkers": WHOLE,
        "workers": array(
            record({"id": WHOLE, "startTime": TEXT, "status": TEXT, "busy": WHOLE, "restarts": WHOLE}),
        ),
    }
)
_FINISH = _or_null({"type": "string", "enum": ["stop", "length"]})
_ENVELOPE: dict[str, Schema] = {"id": TEXT, "created": {**WHOLE, "description": "seconds since 1970"}, "model": TEXT}
# What is said of a model that cannot serve.
_STATE: dict[str, Schema] = {
    "state": {"type": "string", "enum": ["loading", "restarting", "failed"]},
    "phase": TEXT,
    "percent": NUMBER,
    "elapsed": {**NUMBER, "description": "seconds"},
    "error": {**TEXT, "description": "the class of what it failed with"},
}
_TENSOR = record({"name": TEXT, "datatype": TEXT, "shape": array(WHOLE)})
_MODEL_SUMMARY = {"modelName": TEXT, "modelUrl": TEXT, "status": TEXT}

SCHEMAS: dict[str, Schema] = {
    "Error": record(
        {"code": WHOLE, "type": TEXT, "message": TEXT}, description="What the server refuses, in DJLServing's words"
    ),
    "HandlerError": record(
        {"code": WHOLE, "message": TEXT, "error": TEXT}, description="What a handler refuses, or how it failed"
    ),
    "OpenAIError": record(
        {"error": record({"message": TEXT, "type": TEXT, "param": _or_null(TEXT), "code": _or_null(TEXT)})}
    ),
    "Health": {
        "type": "object",
        "description": "by model",
        "additionalProperties": record(
            {"status": {"type": "string", "enum": ["Healthy", "Unhealthy", "Failed"]}},
            _STATE,
        ),
    },
    "GenerationRequest": record(
        {"inputs": {"anyOf": [TEXT, array(TEXT)]}},
        {
            "parameters": record(
                {},
                {
                    "max_new_tokens": {**WHOLE, "minimum": 1, "default": 30},
                    "do_sample": SWITCH,
                    "temperature": NUMBER,
                    "top_k": WHOLE,
                    "top_p": NUMBER,
                    "repetition_penalty": NUMBER,
                    "num_beams": WHOLE,
                    "seed": WHOLE,
                    "stop_sequences": array(TEXT),
                    "return_full_text": SWITCH,
                },
            ),
            "stream": {**SWITCH, "description": "JSON lines, one per step"},
        },
        description="What the text generation handlers read; a handler of one's own reads whatever it likes",
    ),
    "GeneratedTexts": array(record({"generated_text": TEXT})),
    "Message": record(
        {
            "role": {"type": "string", "enum": ["system", "developer", "user", "assistant"]},
            "content": {"anyOf": [TEXT, array(record({"type": {"const": "text"}, "text": TEXT}))]},
        },
        {"name": TEXT},
    ),
    "ChatRequest": record(
        {"messages": array(reference("Message"))},
        {**_LIMITED, "max_completion_tokens": {**WHOLE, "minimum": 1}, "logprobs": SWITCH},
    ),
    "CompletionRequest": record(
        {"prompt": {"anyOf": [TEXT, array(TEXT), array(WHOLE), array(array(WHOLE))]}},
        {
            **_LIMITED,
            "max_tokens": {**WHOLE, "minimum": 1, "default": 16},
            "echo": SWITCH,
            "logprobs": {**WHOLE, "maximum": 0, "minimum": 0},
        },
    ),
    "ChatCompletion": record(
        {
            **_ENVELOPE,
            "object": {"const": "chat.completion"},
            "choices": array(
                record(
                    {
                        "index": WHOLE,
                        "message": record({"role": {"const": "assistant"}, "content": TEXT}),
                        "logprobs": _or_null({"type": "object"}),
                        "finish_reason": _FINISH,
                    }
                )
            ),
            "usage": _USAGE,
        }
    ),
    "Completion": record(
        {
            **_ENVELOPE,
            "object": {"const": "text_completion"},
            "choices": array(
                record(
                    {
                        "index": WHOLE,
                        "text": TEXT,
                        "logprobs": _or_null({"type": "object"}),
                        "finish_reason": _FINISH,
                    }
                )
            ),
            "usage": _USAGE,
        }
    ),
    "OpenAIModel": record({"id": TEXT, "object": {"const": "model"}, "created": WHOLE, "owned_by": TEXT}),
    "OpenAIModels": record({"object": {"const": "list"}, "data": array(reference("OpenAIModel"))}),
    "Models": record(
        {"models": array(record(_MODEL_SUMMARY, {"version": TEXT}))},
        {"nextPageToken": {**TEXT, "description": "for next_page_token, when there are more"}},
    ),
    "ModelDescription": array(
        record(
            {
                "workflowName": TEXT,
                "models": array(
                    record(
                        {
                            **_MODEL_SUMMARY,
                            "batchSize": WHOLE,
                            "maxBatchDelayMillis": WHOLE,
                            "queueSize": WHOLE,
                            "requestInQueue": WHOLE,
                            "loadedAtStartup": SWITCH,
                            "workerGroups": array(_WORKER_GROUP),
                            "engine": TEXT,
                            "entryPoint": TEXT,
                            "tensorParallelDegree": WHOLE,
                        },
                        {
                            "version": TEXT,
                            **_STATE,
                            "report": {**TEXT, "description": "why it failed, for those who may manage"},
                        },
                    )
                ),
            },
            {"version": TEXT},
        )
    ),
    "Workflows": record(
        {"workflows": array(record({"workflowName": TEXT}, {"version": TEXT}))}, {"nextPageToken": TEXT}
    ),
    "Adapter": record({"name": TEXT, "src": TEXT, "options": {"type": "object"}}, {"alias": TEXT}),
    "Adapters": record(
        {"adapters": array(record({"name": TEXT, "src": TEXT}, {"alias": TEXT}))}, {"nextPageToken": TEXT}
    ),
    "Status": record({"status": TEXT}),
    "KServeError": record({"error": TEXT}),
    "KServeServer": record({"name": TEXT, "version": TEXT, "extensions": array(TEXT)}),
    "KServeLive": record({"live": SWITCH}),
    "KServeReady": record({"ready": SWITCH}, {"name": TEXT}),
    "KServeModel": record(
        {"name": TEXT, "versions": array(TEXT), "platform": TEXT, "inputs": array(_TENSOR), "outputs": array(_TENSOR)}
    ),
}
