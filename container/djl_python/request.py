"""One request of a rolling batch, from its prompt to its last token."""

from __future__ import annotations

from djl_python.output_formatter import get_output_formatter
from djl_python.request_io import TextGenerationOutput, TextInput, Token


class Request:
    """The batch's own record: tokens go in, the text for the client comes out, once each."""

    def __init__(self, request_input: TextInput) -> None:
        self.id = request_input.request_id
        self.request_input = request_input
        self.input_text = request_input.input_text
        self.adapter = request_input.adapters
        self.parameters = request_input.server_parameters
        stream = bool(request_input.parameters.get("stream", False))
        formatter = request_input.output_formatter or request_input.server_parameters.get("output_formatter")
        self.output_formatter, self.content_type = get_output_formatter(formatter, stream, request_input.tgi_compat)
        self.request_output = TextGenerationOutput(request_id=self.id, input=request_input)
        self.last_token = False
        self.error_message: str | None = None
        self.error_code: int | None = None
        self.counted_tokens = 0  # of those that were told of in a step
        self._text = ""

    def set_next_token(
        self,
        next_token: Token | str,
        last_token: bool = False,
        finish_reason: str | None = None,
        prompt_tokens_details: list[Token] | None = None,
    ) -> None:
        """Take a token. ``finish_reason`` of the last one: length, eos_token, stop_sequence or error."""
        token = Token(-1, next_token) if isinstance(next_token, str) else next_token
        token.request_id = self.id
        output = self.request_output
        output.set_next_token(token, output.best_sequence_index, last_token, finish_reason)
        if prompt_tokens_details is not None:
            output.prompt_tokens_details = prompt_tokens_details
        self.last_token = output.finished = last_token
        if token.error_msg:
            self.error_message, self.error_code = token.error_msg, 424

    def get_next_token(self) -> str:
        """The text of the tokens that came since ``reset_next_token``."""
        sequence = self.request_output.sequences[self.request_output.best_sequence_index]
        while sequence.has_next_token():
            if self.output_formatter is None:
                token, _first, _last = sequence.get_next_token()
                self._text += token.text if token else ""
            else:
                self._text += self.output_formatter(self.request_output)
        return self._text

    def reset_next_token(self) -> None:
        """The text was sent."""
        self._text = ""

    def is_last_token(self) -> bool:
        """Whether the request is complete."""
        return self.last_token

    def get_content_type(self) -> str | None:
        """What the answer's Content-Type is; None for a formatter of the user's own."""
        return self.content_type

    def __repr__(self) -> str:
        return f"<Request {self.id}{', complete' if self.last_token else ''}>"  # no prompt in a log
