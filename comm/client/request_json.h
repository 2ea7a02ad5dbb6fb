// Requests and results as lines of JSON: what `lorikeet batch` reads and writes, and what the bodies of the client
// protocol share with it.
#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "comm/client/client_messages.h"
#include "kernels/base/error.h"

namespace lorikeet::comm {

// A line of requests.
struct RequestLine {
  GenerateRequest request;
  bool integer_id = false;  // the line's id is an integer; request.id is its decimal form
};

// One request: the names of GenerateRequest's fields. `stop` may be one string, `id` an integer. Errors: a sentence
// that names the field.
Result<RequestLine> parse_request(std::string_view text);

// The `id` that is an integer becomes its decimal form. Whether it was one.
bool take_integer_id(nlohmann::json& message);

// Finds lists past their limits (limits.h: stop strings and ids, biases, bad words, allowed ids), and empty strings.
std::optional<JsonProblem> check_lists(const GenerateRequest& request);

// Refuses what no server would take, whatever its model: an empty or long id, lists past their limits, values that
// are not finite. What depends on the model (lengths, ranges of ids and sampling values) is the gateway's to check.
Result<void> check_sizes(const GenerateRequest& request);

// The id of a request that could not be parsed, where its text shows one; empty otherwise.
std::string find_id(std::string_view text);

// Collects the answers to one request and writes its result line:
//   {"id", "text", "token_ids", "finish_reason", "logprobs", "prompt_logprobs", "usage", "error"}
// and, where the answer has any, "reasoning_content" and "tool_calls".
// The id is written as it came, as a string or an integer. logprobs and prompt_logprobs are null where the request did
// not ask for them; prompt_token_ids, prompt_ranks and prompt_top_logprobs are there where it did.
class ResultLine {
 public:
  explicit ResultLine(const RequestLine& line);

  void add(const Delta& delta);
  void restart();  // drops what was added: the request has been sent again
  std::string finish(const Done& done) const;
  std::string finish(const Failure& failure) const;  // with what was generated before it

 private:
  void add_parts(nlohmann::json& line) const;

  std::string id_;
  bool integer_id_;
  bool with_logprobs_, with_prompt_logprobs_, with_prompt_top_, with_prompt_ids_;
  std::string text_;
  std::vector<int32_t> token_ids_;
  std::vector<TokenLogprobs> logprobs_;
  std::string reasoning_;
  std::vector<ToolCall> tool_calls_;
};

// {"id": null, "line": N, "error": {"code", "message"}}, for the line (counted from 1) of a file that holds no request.
// Where an id can be read in the line's text, that is the result's id.
std::string unreadable_line(size_t line, std::string_view text, const std::string& message);

}  // namespace lorikeet::comm
