"""Structured answers through the unmodified `openai` package, against a running server with tools and grammars.

  structured_client.py URL [COUNT]   COUNT: so many of the schemas, spread over them; else all

Prints what is wrong and exits 1 when anything is.
"""
import enum
import json
import sys
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import openai
import pydantic

import structured_schemas
from client_checks import BASE, openai_client, run_checks

HOT = {"temperature": 1.5, "top_p": 1, "extra_body": {"top_k": 0, "repetition_penalty": 1}}
ASK = [{"role": "user", "content": "What is the weather?"}]


class Sky(enum.Enum):
    clear = "clear"
    clouds = "clouds"
    rain = "rain"


class Weather(pydantic.BaseModel):
    place: str = pydantic.Field(max_length=12)
    degrees: int = pydantic.Field(ge=-40, le=50)
    skies: list[Sky] = pydantic.Field(max_length=3)


class Look(pydantic.BaseModel):
    """Looks out of a window."""

    window: Sky
    minutes: int = pydantic.Field(ge=1, le=60)


LOOK = openai.pydantic_function_tool(Look, name="look")
WAIT = {"type": "function", "function": {"name": "wait", "description": "Does nothing for a while."}}


def parse(client, url):
    for seed in range(6):
        answer = client.chat.completions.parse(model=BASE, messages=ASK, response_format=Weather, max_tokens=400, seed=seed,
                                               **HOT)
        weather = answer.choices[0].message.parsed
        assert isinstance(weather, Weather) and -40 <= weather.degrees <= 50, answer
        assert answer.choices[0].finish_reason == "stop"


def parse_stream(client, url):
    whole = client.chat.completions.parse(model="moby", messages=ASK, response_format=Weather, max_tokens=400, seed=3, **HOT)
    with client.chat.completions.stream(model="moby", messages=ASK, response_format=Weather, max_tokens=400, seed=3,
                                        **HOT) as stream:
        deltas = [event for event in stream if event.type == "content.delta"]
        answer = stream.get_final_completion()
    assert len(deltas) > 3
    assert answer.choices[0].message.parsed == whole.choices[0].message.parsed


def parse_tools(client, url):
    answer = client.chat.completions.parse(model=BASE, messages=ASK, tools=[LOOK], tool_choice="required", seed=2,
                                           parallel_tool_calls=False, max_tokens=300, **HOT)
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None, choice
    (call,) = choice.message.tool_calls
    assert call.id and call.function.name == "look"
    assert isinstance(call.function.parsed_arguments, Look)
    with client.chat.completions.stream(model=BASE, messages=ASK, tools=[LOOK], tool_choice="required", seed=2,
                                        parallel_tool_calls=False, max_tokens=300, **HOT) as stream:
        pieces = [event for event in stream if event.type == "tool_calls.function.arguments.delta"]
        streamed = stream.get_final_completion()
    assert len(pieces) > 3
    assert "".join(piece.arguments_delta for piece in pieces) == call.function.arguments
    assert streamed.choices[0].message.tool_calls[0].function.parsed_arguments == call.function.parsed_arguments
    assert streamed.choices[0].finish_reason == "tool_calls"


def tool_loop(client, url):
    messages = list(ASK)
    for turn in range(3):
        answer = client.chat.completions.create(model=BASE, messages=messages, tools=[LOOK, WAIT], tool_choice="required",
                                                parallel_tool_calls=False, seed=turn, max_tokens=300, **HOT)
        message = answer.choices[0].message
        messages.append(message.model_dump(exclude_none=True))
        for call in message.tool_calls:
            assert call.function.name in ("look", "wait")
            arguments = json.loads(call.function.arguments)
            if call.function.name == "look":
                Look.model_validate(arguments)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": json.dumps({"seen": arguments})})
    prompt = answer.usage.prompt_tokens
    answer = client.chat.completions.create(model=BASE, messages=messages, tools=[LOOK, WAIT], tool_choice="none", seed=1,
                                            max_tokens=20)
    assert answer.choices[0].message.content and not answer.choices[0].message.tool_calls
    assert answer.usage.prompt_tokens > prompt, "calls and their results are in the prompt"
    named = client.chat.completions.create(model=BASE, messages=ASK, tools=[LOOK, WAIT], seed=1, max_tokens=300,
                                           tool_choice={"type": "function", "function": {"name": "wait"}}, **HOT)
    assert [call.function.name for call in named.choices[0].message.tool_calls] == ["wait"]
    several = client.chat.completions.create(model=BASE, messages=ASK, tools=[LOOK], tool_choice="required", seed=4, n=2,
                                             max_tokens=300, **HOT)
    assert len({call.id for choice in several.choices for call in choice.message.tool_calls}) >= 2


def other_grammars(client, url):
    def complete(**outputs):
        body = dict(HOT["extra_body"], **outputs)
        return client.completions.create(model="kjv", prompt="And", max_tokens=40, seed=5, temperature=1.5, top_p=1,
                                         extra_body=body).choices[0].text

    assert complete(guided_choice=["north", "south"]) in ("north", "south")
    assert complete(structured_outputs={"choice": ["east"]}) == "east"
    text = complete(structured_outputs={"regex": "[0-9]{4}-[ab]"})
    assert len(text) == 6 and text[:4].isdigit() and text[4:] in ("-a", "-b"), text
    assert complete(guided_grammar='root ::= "yes" | "no"') in ("yes", "no")
    assert complete(structured_outputs={"grammar": 'start: "left" | "right"'}) in ("left", "right")
    chat = client.chat.completions.create(model=BASE, messages=ASK, seed=1, max_tokens=500,
                                          response_format={"type": "json_object"}, **HOT)
    if chat.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(chat.choices[0].message.content), dict)


def refusals(client, url):
    def refusal(**wants):
        try:
            client.chat.completions.create(model=BASE, messages=ASK, max_tokens=5, **wants)
        except openai.BadRequestError as error:
            return error.message
        raise AssertionError(f"not refused: {wants}")

    def schema(value):
        return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": value}}}

    assert 'properties.a: the keyword "not" is not supported' in refusal(**schema({"properties": {"a": {"not": {}}}}))
    assert "response_format: " in refusal(**schema({"type": "nothing"}))
    assert "response_format: " in refusal(**schema({"type": "integer", "minimum": 5, "maximum": 4}))
    assert "more than 65536" in refusal(**schema({"enum": ["x" * 70000]}))
    assert "structured_outputs: " in refusal(extra_body={"structured_outputs": {"regex": "a("}})
    assert "no tool is named" in refusal(tools=[LOOK], tool_choice={"type": "function", "function": {"name": "x"}})
    assert "tool_choice" in refusal(tools=[LOOK], tool_choice="perhaps")


def schemas(client, url):
    everything = structured_schemas.schemas()
    count = int(sys.argv[2]) if len(sys.argv) > 2 else len(everything)
    chosen = [everything[i * len(everything) // count] for i in range(count)]

    def ask(index):
        schema = chosen[index]["schema"]
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        try:
            answer = client.chat.completions.create(model=BASE, messages=ASK, max_tokens=512, seed=index, response_format=wanted,
                                                    **HOT)
        except openai.BadRequestError as error:
            return "refused", chosen[index]["name"] + ": " + error.message
        text = answer.choices[0].message.content
        if answer.choices[0].finish_reason != "stop":
            return "unfinished", chosen[index]["name"] + ": " + text[:80]
        try:
            jsonschema.validate(json.loads(text), schema, cls=jsonschema.Draft202012Validator)
        except (ValueError, jsonschema.ValidationError) as error:
            return "invalid", f"{chosen[index]['name']}: {error}: {text!r}"
        return "valid", text

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(ask, range(count)))
    kinds = {kind: [text for found, text in results if found == kind] for kind in ("valid", "invalid", "unfinished", "refused")}
    print(f"{count} schemas: " + ", ".join(f"{len(texts)} {kind}" for kind, texts in kinds.items()))
    print("\n".join(f"  {kind}: {text}" for kind in ("invalid", "unfinished", "refused") for text in kinds[kind]))
    assert not kinds["invalid"], "invalid"
    assert len(kinds["refused"]) <= 0.05 * count, "refused"
    assert len(kinds["valid"]) >= 0.95 * (count - len(kinds["refused"])), "unfinished"


def main():
    url = sys.argv[1]
    checks = (parse, parse_stream, parse_tools, tool_loop, other_grammars, refusals, schemas)
    return run_checks(checks, openai_client(url), url)


if __name__ == "__main__":
    sys.exit(main())
