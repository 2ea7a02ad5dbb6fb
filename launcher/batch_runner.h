// `lorikeet batch` without its server: requests from a file to a client, answers from the client to a file.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "comm/client/zmq_client.h"
#include "kernels/base/error.h"
#include "launcher/batch_line.h"
#include "launcher/batch_output.h"
#include "launcher/json_lines.h"

namespace lorikeet::launcher {

// Keeps about `window` requests with the server (more where a single line has more) and writes one result line per input
// line, in the order of the input. Requests that were lost with the server or its ranks are sent again, up to kMaxAttempts
// times; the last time alone, so that a request that crashes ranks takes no other along. Then they fail with the server's
// code. Where the server stops for good, unanswered lines get no result at all.
class BatchRunner {
 public:
  static constexpr int kMaxAttempts = 3;

  // answered: lines that are skipped. `model` is needed for lines in OpenAI's form alone.
  BatchRunner(comm::ZmqClient& client, LineReader& reader, LineFileWriter& writer, size_t window,
              AnsweredLines answered = {}, BatchModel model = {});

  struct Summary {
    int64_t lines = 0, failed = 0, prompt_tokens = 0, completion_tokens = 0;
    int64_t streamed_tokens = 0;  // that have come, also of requests that have not ended
  };

  // Runs until every line is processed, the output cannot be written, or `give_up` says that no server will come back. All
  // answers that have come are written, also where it fails. on_progress is called whenever something has come.
  Result<Summary> run(const std::function<bool()>& give_up,
                      const std::function<void(const Summary&)>& on_progress = {});

 private:
  struct Running {
    int64_t number = 0;                           // of the line
    std::vector<comm::GenerateRequest> requests;  // under the ids that they are sent with
    std::unique_ptr<BatchLine> line;
    int attempts = 0;
  };

  Result<void> work(const std::function<bool()>& give_up, const std::function<void(const Summary&)>& on_progress);
  Result<void> take_line(const std::string& line);
  Result<void> send(Running& running);
  Result<void> handle(const comm::ServerMessage& message);
  std::map<int64_t, Running>::iterator find(const std::string& id);
  Running take(std::map<int64_t, Running>::iterator running);
  void cancel_others(const Running& running, const std::string& failed);
  Result<void> fail_request(const comm::Failure& failure);
  Result<void> finish(int64_t line, std::string result, bool failed);
  Result<void> resend_all();
  // Decides whether a lost request is sent again now, later and alone, or not at all.
  Result<void> lose(std::map<int64_t, Running>::iterator lost, const comm::Failure& failure);

  comm::ZmqClient& client_;
  LineReader& reader_;
  LineFileWriter& writer_;
  size_t window_;
  AnsweredLines answered_;
  const BatchModel model_;
  size_t with_server_ = 0;                   // requests of those that run
  std::map<int64_t, Running> running_;       // by the number of the line among those that are not empty
  std::map<int64_t, std::string> finished_;  // results that wait for an earlier line's
  std::map<int64_t, Running> alone_;         // sent one at a time, when nothing else runs
  int64_t next_line_ = 0, next_result_ = 0;
  Summary summary_;
};

}  // namespace lorikeet::launcher
