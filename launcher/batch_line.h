// A line of `lorikeet batch` and what becomes of it: in our own form (comm/client/request_json.h; where it asks for several
// answers with `n`, their fields are in `choices`, in order), or as OpenAI's batch files have it:
//   {"custom_id", "method": "POST", "url": "/v1/chat/completions" | "/v1/completions", "body"}
//   {"id", "custom_id", "response": {"status_code", "request_id", "body"}, "error": null}
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "comm/client/client_messages.h"
#include "comm/openai/models.h"
#include "comm/openai/openai_error.h"
#include "kernels/base/error.h"

namespace lorikeet::launcher {

// What OpenAI's form needs of the model that answers.
struct BatchModel {
  comm::ModelNames names;                                // of the base model
  std::function<std::string_view(int32_t)> token_bytes;  // may be part of a character
  std::function<std::string(std::span<const int32_t>)> decode;
  std::function<int64_t()> now;  // seconds since 1970
};

// Threads: one.
class BatchLine {
 public:
  virtual ~BatchLine() = default;

  // `number`: of the line among those that are not empty. Errors: neither form can be read, or its id cannot.
  static Result<std::unique_ptr<BatchLine>> parse(std::string_view text, int64_t number, const BatchModel& model);

  // Identifies the line's result in the output: its id as the line has it, in JSON.
  virtual std::string key() const = 0;

  // One per choice; their ids are the caller's to set. None where the line was refused: `refusal` is its result.
  virtual std::vector<comm::GenerateRequest> requests() const = 0;
  virtual std::optional<std::string> refusal() const { return std::nullopt; }

  // Take events of choice `index`. The last choice's end, or a failure, gives the line's result.
  virtual void add(size_t index, const comm::Delta& delta) = 0;
  virtual std::optional<std::string> finish(size_t index, const comm::Done& done) = 0;
  virtual std::string finish(const comm::Failure& failure) const = 0;
  virtual void restart() = 0;  // forgets all events, since all choices are asked for again
};

// The key of a result line that BatchLine has written, and whether it is final: a server's failure is not.
struct BatchResult {
  std::string key;  // or, where there was no request to read,
  std::optional<int64_t> line;
};
std::optional<BatchResult> final_result(std::string_view line);

// Whether a failure is the server's and not the request's, so that the request may be sent again.
bool is_of_the_server(std::string_view code);

}  // namespace lorikeet::launcher
