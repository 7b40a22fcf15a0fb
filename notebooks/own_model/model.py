"""A handler of your own: {"speaker": "KING", "lines": 4} is answered with what that person says.

The server runs this file in one process per device, and calls handle() in all of them at the same time. Whatever
happens here has to be the same in each: a process that computes one step more than the others waits for them for ever.
"""

from bloomery import checkpoints
from bloomery.engines import deepspeed
from bloomery.engines.base import GenerationParameters
from djl_python import Input, Output
from djl_python.handler_options import dtype_of

# Which linear layers of a block end what has been split: DeepSpeed adds up the ranks' shares behind each of them, and
# splits the other layers of the block between the ranks. Name your own block, and its layers as its class calls them.
INJECTION_POLICY = {"BloomBlock": ("self_attention.dense", "mlp.dense_4h_to_h")}
MOST_LINES, TOKENS_PER_LINE = 20, 24
engine = None


def load(options):
    """Fetch the checkpoint, then split it as the policy says."""
    return deepspeed.load(
        checkpoints.locate(options["model_id"]),
        tensor_parallel=int(options.get("tensor_parallel_degree", 1)),
        dtype=dtype_of(options),
        kernel_inject=False,  # DeepSpeed's own layers are for models that it knows
        injection_policy=INJECTION_POLICY,
    )


def speech(speaker, lines, sample):
    """The next ``lines`` lines of ``speaker``, or fewer: an empty line ends a speech."""
    prompt = engine.tokenizer(f"{speaker}.\n")["input_ids"]
    parameters = GenerationParameters(max_new_tokens=lines * TOKENS_PER_LINE, do_sample=sample)
    tokens, text = [], ""
    for step in engine.generate([prompt], parameters):
        tokens += [token for token in step.tokens if token is not None]
        text = engine.tokenizer.decode(tokens, skip_special_tokens=True)
        if "\n\n" in text or text.count("\n") >= lines:
            break  # all ranks have the same tokens, so all of them end here
    return text.partition("\n\n")[0].strip().splitlines()[:lines]


def handle(inputs: Input) -> Output | None:
    """Answer one request."""
    global engine
    if engine is None:
        engine = load(inputs.get_properties())
    if inputs.is_empty():  # the call that only loads
        return None
    body = inputs.get_as_json()
    speaker, lines = str(body.get("speaker", "")).strip().upper(), body.get("lines", 4)
    if not speaker or not isinstance(lines, int) or not 1 <= lines <= MOST_LINES:
        return Output().error(f'"speaker" is a name and "lines" a number up to {MOST_LINES}; got {body}', 400)
    answer = {"speaker": speaker, "lines": speech(speaker, lines, bool(body.get("sample", False)))}
    return Output().add_property("content-type", "application/json").add_as_json(answer)
