"""What the tests of clients in Python share: the example model's name, and how checks are run."""
import traceback

import openai

BASE = "tiny-qwen2-gptq-int4"
# The tokens that depend on nothing but the prompt.
GREEDY = {"temperature": 0, "extra_body": {"repetition_penalty": 1, "top_k": 0, "ignore_eos": True}}


def openai_client(url):
    """The unmodified `openai` package, which asks once."""
    return openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0, timeout=300)


def run_checks(checks, *arguments):
    """Calls each check; prints what is wrong. Returns the exit status."""
    failed = 0
    for check in checks:
        try:
            check(*arguments)
        except Exception:
            failed += 1
            print(f"{check.__name__}:\n{traceback.format_exc()}")
    print(f"{failed} failed")
    return 1 if failed else 0
