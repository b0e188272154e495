"""instructor: the same record by a demanded call and by a JSON schema, whole and in parts, on both protocols.

JSON mode, where the schema is only described in the prompt, is beyond the embedded model.
"""
import anthropic
import instructor
import openai
from pydantic import BaseModel, ConfigDict, Field

from scenario import KEY, MODEL, RECORD, base_url, check

MESSAGES = [{"role": "user", "content": RECORD["user"]}]
EXPECTED = {RECORD["field"]: RECORD["value"]}


class Record(BaseModel):
    """Structured output."""

    model_config = ConfigDict(extra="forbid")
    code: str = Field(pattern=RECORD["pattern"])


def main():
    client = openai.OpenAI(base_url=base_url() + "/v1", api_key=KEY, max_retries=0, timeout=60)
    greedy = {"model": MODEL, "messages": MESSAGES, "temperature": 0, "max_tokens": 200, "max_retries": 1}
    for mode in (instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT, instructor.Mode.JSON_SCHEMA):
        record, reply = instructor.from_openai(client, mode=mode).chat.completions.create_with_completion(response_model=Record, **greedy)
        check(f"openai {mode.name}", record.model_dump(), EXPECTED)
        check("cached_tokens", reply.usage.prompt_tokens_details.cached_tokens < reply.usage.prompt_tokens, True)
        parts = list(instructor.from_openai(client, mode=mode).chat.completions.create_partial(response_model=Record, **greedy))
        check(f"openai {mode.name} in parts", parts[-1].model_dump(), EXPECTED)
    client = anthropic.Anthropic(base_url=base_url(), api_key=KEY, max_retries=0, timeout=60)
    greedy = {"model": MODEL, "messages": MESSAGES, "max_tokens": 200, "max_retries": 1, "extra_body": {"temperature": 0}}
    for mode in (instructor.Mode.ANTHROPIC_TOOLS,):
        record = instructor.from_anthropic(client, mode=mode).messages.create(response_model=Record, **greedy)
        check(f"anthropic {mode.name}", record.model_dump(), EXPECTED)


main()
