#include "actors/wire/server_status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include "comm/codec/json_codec.h"

namespace lorikeet::actors {
namespace {

using ::testing::HasSubstr;

ServerStatus full_status() {
  ServerStatus status;
  status.model = "tiny";
  status.max_model_len = 64;
  status.vocab_size = 1000;
  status.live_requests = 7;
  status.supervisor.pid = 41;
  ServingStatus& serving = status.serving;
  serving.zmq = "tcp://here";
  serving.serving = true;
  serving.kv_cache_tokens = 1 << 20;
  serving.epoch = 3;
  serving.head.pid = 42;
  serving.queues = {5, 2};
  serving.engine.stats.running = 4;
  serving.engine.plans_sent_ahead = 9;
  for (const uint64_t idle : {3, 400, 400}) serving.steps.add({1000, idle, true});
  serving.ranks.push_back({1, "ready", 43, 3, "host", "cpu", 1ULL << 40, 65536, 31});
  serving.last_pauses.push_back({2, "rank 1 died", false, 1, 1, 2, 3, 4, 5, 0, 15});
  status.adapters.transfers = 1;
  status.adapters.staged_bytes = 1ULL << 33;
  status.adapters.adapters.push_back({"kjv", "d", "staged", "resident", 2, 1, 3, 16, 4096, "/kjv", std::nullopt});
  status.adapters.adapters.push_back({"bad", "", "on_disk", "none", std::nullopt, 0, 0, 0, 0, "/bad", "no lora_B"});
  return status;
}

TEST(ServerStatus, BecomesJsonWithThePartsOfAllActorsSideBySide) {
  const auto json = comm::to_json_value(full_status());
  EXPECT_EQ(json["model"], "tiny");
  EXPECT_EQ(json["supervisor"]["pid"], 41);
  EXPECT_EQ(json["zmq"], "tcp://here");
  EXPECT_EQ(json["serving"], true);
  EXPECT_EQ(json["queues"]["reading_adapters"], 2);
  EXPECT_EQ(json["engine"]["running"], 4);
  EXPECT_EQ(json["engine"]["plans_sent_ahead"], 9);
  EXPECT_EQ(json["steps"]["decode_steps"], 3);
  EXPECT_EQ(json["steps"]["decode_idle"], nlohmann::json::parse("[[3, 1], [415, 2]]"));
  EXPECT_EQ(json["ranks"][0]["weight_bytes"], 1ULL << 40);
  EXPECT_EQ(json["staged_adapter_bytes"], 1ULL << 33);
  EXPECT_EQ(json["adapters"][0]["slot"], 2);
  EXPECT_TRUE(json["adapters"][0]["error"].is_null());
  EXPECT_TRUE(json["adapters"][1]["slot"].is_null());
  EXPECT_EQ(json["adapters"][1]["error"], "no lora_B");
}

TEST(ServerStatus, IsTheSameWhenItHasBeenRead) {
  const std::string json = comm::to_json(full_status());
  const auto back = comm::from_json<ServerStatus>(json);
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(comm::to_json(*back), json);
  EXPECT_EQ(back->serving.steps, full_status().serving.steps);
}

TEST(ServerStatus, IsReadFromOtherVersionsWithWhatTheyHave) {
  const auto read = [](const char* json) { return comm::from_json<ServerStatus>(json, {}, comm::JsonKeys::any); };
  const auto status =
      read(R"({"model": "m", "news": {"a": [1]}, "ranks": [{"rank": 1, "colour": "red"}], "zmq": null})");
  ASSERT_TRUE(status) << status.error().message;
  EXPECT_EQ(status->model, "m");
  EXPECT_EQ(status->serving.ranks.at(0).rank, 1);
  EXPECT_EQ(status->serving.zmq, "");
  const auto wrong = read(R"({"ranks": [{"rank": "one"}]})");
  ASSERT_FALSE(wrong);
  EXPECT_THAT(wrong.error().message, HasSubstr("ranks[0].rank must be an integer"));
}

// Names of the fields of a struct and of the structs and lists in it.
void add_keys(const nlohmann::json& value, std::set<std::string>& keys) {
  if (value.is_array() && !value.empty()) add_keys(value[0], keys);
  if (!value.is_object()) return;
  for (const auto& [key, member] : value.items()) {
    keys.insert(key);
    add_keys(member, keys);
  }
}

TEST(ServerStatus, HasEveryFieldExplainedOnTheProtocolsPage) {
  std::ifstream file(LORIKEET_SOURCE_DIR "/comm/PROTOCOL.md");
  std::stringstream page;
  page << file.rdbuf();
  const std::string text = page.str();
  const std::string object = text.substr(text.find("## The status object"));
  std::set<std::string> keys;
  add_keys(comm::to_json_value(full_status()), keys);
  EXPECT_GT(keys.size(), 50u);
  for (const std::string& key : keys) {
    const bool named =
        object.find("`" + key + "`") != std::string::npos || object.find("\"" + key + "\"") != std::string::npos;
    EXPECT_TRUE(named) << key;
  }
}

}  // namespace
}  // namespace lorikeet::actors
