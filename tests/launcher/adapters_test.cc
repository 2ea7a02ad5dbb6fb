// Adapters loaded into a running server, through both doors and the command line.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <optional>
#include <variant>

#include "tests/comm/http/raw_client.h"
#include "tests/launcher/served.h"

namespace lorikeet::tests {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;

// A directory below which clients may load adapters, with good and bad ones.
class AdapterFolder {
 public:
  AdapterFolder() {
    for (const char* name : {"moby", "kjv", "corrupt"}) {
      const std::string from = std::string(name) == "corrupt" ? "kjv" : name;
      fs::copy(source_path("examples/models/adapters/" + from), dir() / name);
    }
    fs::resize_file(dir() / "corrupt/adapter_model.safetensors", 1000);
    fs::copy(source_path("tests/data/formats/qwen2.5-awq/adapters/all-r8"), dir() / "other-base");
    fs::create_directory(dir() / "empty");
    fs::create_directory_symlink(source_path("examples/models/adapters/kjv"), dir() / "escape");
  }
  fs::path dir() const { return scratch_.path(); }

  std::vector<std::string> flags() const {
    return {"--enable-runtime-lora-updating", "--lora-dir", dir().string(), "--tp", "2"};
  }

 private:
  TempDir scratch_;
};

// The answer to a change; nothing where none came in time.
std::optional<comm::ServerMessage> ask(const Served& server, comm::Encoding encoding, comm::AdapterRequest request) {
  const auto client = comm::ZmqClient::connect(server.address(), encoding).value();
  EXPECT_TRUE(client->send(request).has_value());
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (std::chrono::steady_clock::now() < end) {
    if (auto message = client->receive(std::chrono::milliseconds(100))) return message;
  }
  return std::nullopt;
}

// What the adapter goes on with.
std::vector<int32_t> tokens_by(Served& server, const std::string& adapter) {
  const Answer got = server.ask(greedy_request("Call me", adapter, 8));
  EXPECT_FALSE(got.failure) << got.failure->message;
  return got.token_ids;
}

Finished adapters(const Served& server, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "adapters");
  arguments.insert(arguments.end(), {"--zmq", server.address()});
  return run_lorikeet(arguments);
}

TEST(Adapters, AreLoadedIntoARunningServerByOpenAisUsers) {
  const AdapterFolder folder;
  Served server(folder.flags());
  ASSERT_TRUE(server.ready()) << server.process().err();
  const Finished client =
      run_python(source_path("tests/launcher/adapters_client.py"), {server.http_url(), folder.dir().string()});
  EXPECT_EQ(client.status, 0) << client.out << client.err << server.process().err();
  const auto status = server.status();
  for (const auto& row : status["adapters"]) {
    EXPECT_EQ(row["claims"], 0) << row;
    EXPECT_EQ(row["leases"], 0) << row;
  }
}

TEST(Adapters, AreServedFromMemoryAfterTheirFilesWereDeletedUntilOthersAreThere) {
  const AdapterFolder folder;
  Served server({"--tp", "2", "--lora-modules", "mine=" + (folder.dir() / "moby").string()});
  ASSERT_TRUE(server.ready()) << server.process().err();
  const auto answer = [&server](const std::string& adapter) { return tokens_by(server, adapter); };
  const auto of_moby = answer("mine");
  ASSERT_EQ(of_moby.size(), 8u);
  fs::remove_all(folder.dir() / "moby");
  EXPECT_EQ(answer("mine"), of_moby);
  const auto error = [&server] {
    const auto status = server.status();
    for (const auto& row : status["adapters"]) {
      if (row["name"] == "mine") return row["error"].is_string() ? row["error"].get<std::string>() : "";
    }
    return std::string("there is no such adapter");
  };
  EXPECT_THAT(error(), HasSubstr("its files are gone; what they held is served from memory"));
  fs::copy(source_path("examples/models/adapters/shakespeare"), folder.dir() / "moby");
  EXPECT_EQ(answer("mine"), answer("shakespeare")) << "from now on it is what is there";
  EXPECT_NE(answer("mine"), of_moby);
  EXPECT_EQ(error(), "");
}

TEST(Adapters, AreServedFromMemoryWhileOtherFilesAreCopiedOverTheirs) {
  const AdapterFolder folder;
  Served server({"--tp", "2", "--lora-modules", "mine=" + (folder.dir() / "moby").string()});
  ASSERT_TRUE(server.ready()) << server.process().err();
  const auto answer = [&server](const std::string& adapter) { return tokens_by(server, adapter); };
  const auto of_moby = answer("mine");
  const fs::path to = folder.dir() / "moby/adapter_model.safetensors";
  const std::string whole = read_file(source_path("examples/models/adapters/shakespeare") / to.filename());
  for (const size_t bytes : {size_t{0}, size_t{5}, whole.size() / 2, whole.size() - 1}) {
    // A write counts as the middle of a copy for two seconds; a request that a busy machine took longer to look at the
    // file for says nothing.
    std::vector<int32_t> got;
    for (int i = 0; i < 20 && got.empty(); ++i) {
      write_file(to, whole.substr(0, bytes));
      const auto written = std::chrono::steady_clock::now();
      const Answer answer = server.ask(greedy_request("Call me", "mine", 8));
      if (answer.failure) ASSERT_GT(std::chrono::steady_clock::now() - written, std::chrono::seconds(2));
      got = answer.token_ids;
    }
    EXPECT_EQ(got, of_moby) << bytes;
  }
  write_file(to, whole);
  fs::copy_file(source_path("examples/models/adapters/shakespeare/adapter_config.json"),
                folder.dir() / "moby/adapter_config.json", fs::copy_options::overwrite_existing);
  EXPECT_EQ(answer("mine"), answer("shakespeare"));
  EXPECT_NE(answer("mine"), of_moby);
}

TEST(Adapters, OfRunTimeStayWithWhatALinkLedToAndNeverLeaveTheirDirectory) {
  const AdapterFolder folder;
  Served server(folder.flags());
  ASSERT_TRUE(server.ready()) << server.process().err();
  const auto text = [&server](const std::string& name) {
    return server.ask(greedy_request("The whale", name, 8)).text;
  };
  const fs::path current = folder.dir() / "current";
  const auto turn_to = [&current](const fs::path& target) {
    fs::remove(current);
    fs::create_directory_symlink(target, current);
  };
  turn_to("moby");
  EXPECT_EQ(adapters(server, {"load", "mine", "current"}).status, 0);
  const std::string of_moby = text("moby");
  EXPECT_EQ(text("mine"), of_moby);
  turn_to("kjv");
  EXPECT_EQ(text("mine"), of_moby) << "the link was followed when it was loaded";
  EXPECT_EQ(adapters(server, {"load", "mine", "current", "--load-inplace"}).status, 0);
  EXPECT_EQ(text("mine"), text("kjv"));

  turn_to(source_path("examples/models/adapters/shakespeare"));
  const Finished out = adapters(server, {"load", "mine", "current", "--load-inplace"});
  EXPECT_EQ(out.status, 1);
  EXPECT_THAT(out.err, HasSubstr("current is not below "));
  EXPECT_EQ(text("mine"), text("kjv")) << "a load that fails changes nothing";
  // The directory itself, and a file of it, become links that lead out.
  fs::rename(folder.dir() / "kjv", folder.dir() / "old");
  fs::create_directory_symlink(source_path("examples/models/adapters/shakespeare"), folder.dir() / "kjv");
  Answer refused = server.ask(greedy_request("The whale", "mine", 8));
  ASSERT_TRUE(refused.failure);
  EXPECT_EQ(refused.failure->code, "adapter_failed");
  EXPECT_THAT(refused.failure->message, HasSubstr("is not below "));
  fs::remove(folder.dir() / "kjv");
  fs::rename(folder.dir() / "old", folder.dir() / "kjv");
  // Whatever lies there, or nothing; and nothing of it is taken for files that are being written.
  for (const fs::path& there : {source_path("examples/models/adapters/kjv/adapter_model.safetensors"), fs::path("/etc"),
                                fs::path("/dev/null"), fs::path("/none")}) {
    fs::remove(folder.dir() / "kjv/adapter_model.safetensors");
    fs::create_symlink(there, folder.dir() / "kjv/adapter_model.safetensors");
    refused = server.ask(greedy_request("The whale", "mine", 8));
    ASSERT_TRUE(refused.failure) << there;
    EXPECT_THAT(refused.failure->message, HasSubstr("leads to a file that is not below")) << there;
  }
}

TEST(Adapters, AreLoadedIntoARunningServerOverZmqAndByTheCommandLine) {
  const AdapterFolder folder;
  Served server(folder.flags());
  ASSERT_TRUE(server.ready()) << server.process().err();
  const std::string kjv = server.ask(greedy_request("The whale", "kjv", 8)).text;
  for (const auto encoding : {comm::Encoding::cereal, comm::Encoding::json}) {
    const std::string name = encoding == comm::Encoding::json ? "by-json" : "by-cereal";
    const auto answer = ask(server, encoding, {"1", "load", name, (folder.dir() / "kjv").string(), false});
    ASSERT_TRUE(answer && std::holds_alternative<comm::AdapterReply>(*answer)) << server.process().err();
    EXPECT_EQ(std::get<comm::AdapterReply>(*answer).id, "1");
    EXPECT_EQ(server.ask(greedy_request("The whale", name, 8)).text, kjv);
    const auto refused = ask(server, encoding, {"2", "load", "x", "escape", false});
    ASSERT_TRUE(refused && std::holds_alternative<comm::Failure>(*refused));
    EXPECT_EQ(std::get<comm::Failure>(*refused).code, "forbidden");
    const auto malformed = ask(server, encoding, {"3", "load", "x", std::nullopt, false});
    ASSERT_TRUE(malformed && std::holds_alternative<comm::Failure>(*malformed));
    EXPECT_EQ(std::get<comm::Failure>(*malformed).code, "malformed");
    const auto unreachable = ask(server, encoding, {"4", "load", "-", "kjv", false});
    ASSERT_TRUE(unreachable && std::holds_alternative<comm::Failure>(*unreachable));
    EXPECT_EQ(std::get<comm::Failure>(*unreachable).message, "the name - stands for the base model");
  }

  Finished run = adapters(server, {"load", "late", "moby"});
  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_EQ(run.out, "Success: LoRA adapter 'late' added successfully.\n");
  run = adapters(server, {"load", "late", "kjv"});
  EXPECT_EQ(run.status, 1);
  EXPECT_THAT(run.err, HasSubstr("set 'load_inplace' to True. Here that is --load-inplace.\n"));
  run = adapters(server, {"pin", "late"});
  EXPECT_EQ(run.out, "'late' is pinned\n") << run.err;
  run = adapters(server, {"list", "--json"});
  const json list = json::parse(run.out);
  ASSERT_EQ(list["adapters"].size(), 6u) << run.out;
  for (const json& row : list["adapters"]) {
    if (row["name"] != "late") continue;
    EXPECT_TRUE(row["pinned"].get<bool>());
    EXPECT_EQ(row["tier"], "slot");
  }
  EXPECT_THAT(adapters(server, {"list"}).out, HasSubstr("\n  name"));
  EXPECT_EQ(adapters(server, {"warm", "late"}).status, 0);
  EXPECT_EQ(adapters(server, {"unpin", "late"}).status, 0);
  EXPECT_EQ(adapters(server, {"load", "late", "corrupt", "--load-inplace"}).status, 1);
  EXPECT_EQ(server.ask(greedy_request("The whale", "late", 8)).text,
            server.ask(greedy_request("The whale", "moby", 8)).text);
  EXPECT_EQ(adapters(server, {"unload", "late"}).status, 0);
  run = adapters(server, {"unload", "late"});
  EXPECT_EQ(run.status, 1);
  EXPECT_EQ(run.err, "lorikeet adapters unload: The lora adapter 'late' cannot be found.\n");
  const Answer gone = server.ask(greedy_request("The whale", "late", 8));
  ASSERT_TRUE(gone.failure);
  EXPECT_EQ(gone.failure->code, "unknown_adapter");

  // The log is written by a thread of its own.
  const std::string last = "adapter late: unload, ";
  for (int i = 0; i < 3000 && server.process().err().find(last) == std::string::npos; ++i) server.status();
  EXPECT_THAT(server.process().err(), HasSubstr(last));
  EXPECT_THAT(server.process().err(), HasSubstr(" info adapter late: load from moby, "));
  EXPECT_THAT(server.process().err(), HasSubstr(" warning adapter x: load from escape, "));
}

// The row of the adapter in the status; null: there is none.
json row_of(const Served& server, const std::string& name) {
  const json status = server.status();
  for (const json& row : status["adapters"]) {
    if (row["name"] == name) return row;
  }
  return nullptr;
}

bool comes_true(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
  }
  return true;
}

TEST(Adapters, KeepTheirNamesWhenTheHeadIsReplaced) {
  const AdapterFolder folder;
  Served server(folder.flags());
  ASSERT_TRUE(server.ready()) << server.process().err();
  const std::string kjv = server.ask(greedy_request("The whale", "kjv", 8)).text;
  for (const auto& change : std::vector<std::vector<std::string>>{
           {"load", "late", "kjv"}, {"load", "gone", "moby"}, {"pin", "late"}, {"unload", "shakespeare"}}) {
    const Finished run = adapters(server, change);
    ASSERT_EQ(run.status, 0) << run.err;
  }
  const json before = server.status();
  fs::remove_all(folder.dir() / "moby");
  kill(before["head"]["pid"].get<pid_t>(), SIGKILL);
  ASSERT_TRUE(wait_until_gone({before["head"]["pid"].get<pid_t>()}));
  const Answer late = server.ask(greedy_request("The whale", "late", 8));
  ASSERT_TRUE(late.done) << (late.failure ? late.failure->message : "no answer");
  EXPECT_EQ(late.text, kjv);
  EXPECT_NE(server.status()["head"]["pid"], before["head"]["pid"]);
  EXPECT_TRUE(row_of(server, "shakespeare").is_null());
  EXPECT_TRUE(comes_true([&] { return row_of(server, "late")["pinned"] == true; })) << server.status();
  EXPECT_TRUE(comes_true([&] { return row_of(server, "gone").is_null(); })) << server.status();
  EXPECT_THAT(server.process().err(), HasSubstr("adapter gone was loaded before this process was replaced"));
  EXPECT_FALSE(row_of(server, "moby").is_null()) << "a name of the start";

  const std::string of_server = "-" + std::to_string(before["supervisor"]["pid"].get<pid_t>()) + "-";
  server.process().signal(SIGTERM);
  EXPECT_EQ(server.process().wait(), 0) << server.process().err();
  for (const auto& file : fs::directory_iterator("/dev/shm")) {
    const std::string name = file.path().filename().string();
    EXPECT_FALSE(name.rfind("lorikeet-names-", 0) == 0 && name.find(of_server) != std::string::npos) << name;
  }
}

TEST(Adapters, AreChangedByNobodyUnlessTheServerAllowsIt) {
  Served server({"--lora-dir", source_path("examples/models/adapters").string()});
  ASSERT_TRUE(server.ready()) << server.process().err();
  RawClient client(server.http_port());
  client.send(post("/v1/load_lora_adapter", R"({"lora_name": "x", "lora_path": "kjv"})"));
  EXPECT_THAT(client.read_until("}}"), HasSubstr("HTTP/1.1 403"));
  client.forget();
  client.send(post("/v1/unload_lora_adapter", R"({"lora_name": "kjv"})"));
  EXPECT_THAT(client.read_until("}}"), HasSubstr("--enable-runtime-lora-updating"));
  const Finished run = adapters(server, {"unload", "kjv"});
  EXPECT_EQ(run.status, 1);
  EXPECT_THAT(run.err, HasSubstr("--enable-runtime-lora-updating"));
  EXPECT_EQ(server.status()["adapters"].size(), 3u);
}

}  // namespace
}  // namespace lorikeet::tests
