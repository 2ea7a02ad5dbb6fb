#include <fmt/format.h>
#include <stdlib.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <future>
#include <memory>
#include <thread>

#include "launcher/batch_runner.h"
#include "launcher/commands.h"
#include "launcher/server_flags.h"
#include "launcher/stop_signals.h"

namespace lorikeet::launcher {
namespace {

struct BatchFlags {
  ServerFlags server;
  std::string input;
  std::string output;
};

// A directory of our own for the server's socket; removed at the end.
class SocketDirectory {
 public:
  static Result<SocketDirectory> make() {
    std::string pattern = (std::filesystem::temp_directory_path() / "lorikeet-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) return fail("cannot make a directory {}", pattern);
    SocketDirectory directory;
    directory.path_.reset(new std::string(pattern));
    return directory;
  }
  std::string address() const { return "ipc://" + *path_ + "/zmq"; }

 private:
  struct Remove {
    void operator()(std::string* path) const {
      std::error_code ignored;
      std::filesystem::remove_all(*path, ignored);
      delete path;
    }
  };
  std::unique_ptr<std::string, Remove> path_;
};

// The server's end: `done` becomes ready when the server has stopped, on its own or asked to.
struct ServerRun {
  std::unique_ptr<actors::Server> server;
  std::future<int> done;

  bool stopped() const { return done.wait_for(std::chrono::seconds(0)) == std::future_status::ready; }
  ~ServerRun() {
    if (server) server->request_stop();
  }
};

Result<void> batch(const BatchFlags& flags) {
  auto options = resolve(flags.server);
  if (!options) return tl::unexpected(options.error());
  auto reader = LineReader::open(flags.input);
  if (!reader) return tl::unexpected(reader.error());
  auto writer = LineWriter::open(flags.output);
  if (!writer) return tl::unexpected(writer.error());
  auto directory = SocketDirectory::make();
  if (!directory) return tl::unexpected(directory.error());
  options->zmq_address = directory->address();

  auto ready = std::make_shared<std::promise<void>>();
  auto told = ready->get_future();
  actors::ServerCallbacks callbacks;
  callbacks.on_progress = [](const std::string& line) { fmt::print(stderr, "{}\n", line); };
  callbacks.on_ready = [ready, once = std::make_shared<std::once_flag>()](const std::string&) {
    std::call_once(*once, [&] { ready->set_value(); });  // told again when a lost head has come back
  };
  auto server = actors::Server::start(*options, std::move(callbacks));
  if (!server) return tl::unexpected(server.error());
  StopSignals signals(**server);
  ServerRun run{*std::move(server), {}};
  run.done = std::async(std::launch::async, [&run] { return run.server->wait(); });
  while (told.wait_for(std::chrono::milliseconds(50)) != std::future_status::ready) {
    if (run.stopped()) return fail("the server did not start");
  }

  auto client = comm::ZmqClient::connect(options->zmq_address);
  if (!client) return tl::unexpected(client.error());
  const auto begin = std::chrono::steady_clock::now();
  const size_t window = static_cast<size_t>(std::min(options->max_num_queued_reqs, 1024));
  BatchRunner runner(**client, *reader, *writer, window);
  const auto summary = runner.run([&run] { return run.stopped(); });
  if (!summary) return tl::unexpected(summary.error());
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  fmt::print(stderr, "{} lines, {} failed, {} prompt and {} generated tokens in {:.2f} s\n", summary->lines,
             summary->failed, summary->prompt_tokens, summary->completion_tokens, seconds);
  return writer->close();
}

}  // namespace

void add_batch_command(CLI::App& app, int& exit_status) {
  auto flags = std::make_shared<BatchFlags>();
  CLI::App* command =
      app.add_subcommand("batch", "Answers a file of requests offline, through the same actors as serve");
  add_server_flags(*command, flags->server);
  command->remove_option(command->get_option("--zmq"));
  command->add_option("--input,-i", flags->input, "Requests, one JSON object per line; - is the standard input")
      ->required();
  command->add_option("--output,-o", flags->output, "Results, one JSON object per line; - is the standard output")
      ->required();
  command->callback([flags, &exit_status] {
    if (auto ok = batch(*flags); !ok) {
      fmt::print(stderr, "lorikeet batch: {}\n", ok.error().message);
      exit_status = 1;
    }
  });
}

}  // namespace lorikeet::launcher
