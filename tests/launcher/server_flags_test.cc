#include "launcher/server_flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/launcher/process.h"
#include "tests/model/checkpoint/safetensors_writer.h"
#include "tests/model/temp_dir.h"

namespace lorikeet::launcher {
namespace {

TEST(ParseBytes, TakesPlainNumbersAndPowersOf1024) {
  EXPECT_EQ(parse_bytes("0").value(), 0u);
  EXPECT_EQ(parse_bytes("1234").value(), 1234u);
  EXPECT_EQ(parse_bytes("3K").value(), 3u << 10);
  EXPECT_EQ(parse_bytes("512M").value(), 512u << 20);
  EXPECT_EQ(parse_bytes("2G").value(), 2ULL << 30);
}

TEST(ParseBytes, RefusesWhatIsNoNumberOrTooLarge) {
  for (const char* text : {"", "G", "-1", "1.5G", "2GB", "99999999999999999999", "1048577G"}) {
    EXPECT_FALSE(parse_bytes(text).has_value()) << text;
  }
}

TEST(ParseLoraModule, TakesNameAndDirectory) {
  EXPECT_EQ(parse_lora_module("kjv=/some/dir=x").value(), (std::pair<std::string, std::string>("kjv", "/some/dir=x")));
}

TEST(ParseLoraModule, TakesTheJsonFormOfVllm) {
  const auto module = parse_lora_module(R"({"name": "kjv", "path": "/dir", "base_model_name": "m"})").value();
  EXPECT_EQ(module, (std::pair<std::string, std::string>("kjv", "/dir")));
}

TEST(ParseLoraModule, RefusesOtherForms) {
  for (const char* text : {"kjv", "=dir", "kjv=", R"({"name": "kjv"})", "{", R"({"name": 1, "path": "/d"})"}) {
    EXPECT_FALSE(parse_lora_module(text).has_value()) << text;
  }
}

class Flags : public testing::Test {
 protected:
  // Parses `arguments` as those of `serve` and resolves them; the message where either fails.
  Result<actors::ServerOptions> parse(std::vector<std::string> arguments) {
    CLI::App app;
    ServerFlags flags;
    add_server_flags(app, flags);
    std::reverse(arguments.begin(), arguments.end());
    try {
      app.parse(arguments);
    } catch (const CLI::Error& error) {
      return fail("{}", error.what());
    }
    return resolve(flags);
  }
  const std::string model_ = tests::source_path("examples/models/tiny-qwen2-gptq-int4").string();
  const std::string adapter_ = tests::source_path("examples/models/adapters/kjv").string();
};

TEST_F(Flags, AllowTheWholeLengthToWhichYarnStretchesTheCheckpoint) {
  const tests::TempDir dir;
  std::ifstream file(std::filesystem::path(model_) / "config.json");
  nlohmann::json config = nlohmann::json::parse(file);
  config["max_position_embeddings"] = 128;
  config["rope_scaling"] = {{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 128}};
  tests::write_file(dir / "config.json", config.dump());
  const auto with_length = [&](const char* length) {
    return parse({"--model", dir.path().string(), "--device", "cpu", "--max-model-len", length});
  };
  EXPECT_EQ(with_length("512").value().max_model_len, 512);
  EXPECT_THAT(with_length("513").error().message, testing::HasSubstr("more than the 512 positions"));
}

TEST_F(Flags, TakeSeveralAdaptersAndRepetitions) {
  const auto options = parse({"--model", model_, "--lora-modules", "a=" + adapter_, "b=" + adapter_, "--device", "cpu",
                              "--lora-modules", "c=" + adapter_})
                           .value();
  ASSERT_EQ(options.lora_modules.size(), 3u);
  EXPECT_EQ(options.lora_modules[2].first, "c");
  EXPECT_EQ(options.served_model_name, "tiny-qwen2-gptq-int4");
}

TEST_F(Flags, RefuseTwoAdaptersOfOneName) {
  const auto options = parse({"--model", model_, "--lora-modules", "a=" + adapter_, "a=" + adapter_});
  ASSERT_FALSE(options.has_value());
  EXPECT_NE(options.error().message.find("'a' is given twice"), std::string::npos);
}

TEST_F(Flags, RefuseAnAdapterThatIsNamedAsTheBaseModel) {
  const auto options = parse({"--model", model_, "--served-model-name", "a", "--lora-modules", "a=" + adapter_});
  ASSERT_FALSE(options.has_value());
  EXPECT_NE(options.error().message.find("is the name of the base model"), std::string::npos);
}

TEST_F(Flags, NameTheFlagWhoseValueIsOutOfRange) {
  for (const auto& [flag, value] : {std::pair{"--max-num-seqs", "0"},
                                    {"--block-size", "-4"},
                                    {"--max-loras", "0"},
                                    {"--gpu-memory-utilization", "1.5"},
                                    {"--max-num-batched-tokens", "0"}}) {
    const auto options = parse({"--model", model_, flag, value});
    ASSERT_FALSE(options.has_value()) << flag;
    EXPECT_NE(options.error().message.find(flag), std::string::npos) << options.error().message;
  }
}

TEST_F(Flags, ExplainTheFlagsOfVllmThatMeanNothingHere) {
  const auto options = parse({"--model", model_, "--trust-remote-code"});
  ASSERT_FALSE(options.has_value());
  EXPECT_EQ(options.error().message, "--trust-remote-code: no code is ever loaded from a checkpoint");
}

TEST_F(Flags, PassThroughTheEncodedForm) {
  const auto options =
      parse({"--model", model_, "--kv-cache-memory-bytes", "8M", "--no-enable-prefix-caching"}).value();
  EXPECT_EQ(options.kv_cache_memory_bytes, 8u << 20);
  EXPECT_FALSE(options.enable_prefix_caching);
}

}  // namespace
}  // namespace lorikeet::launcher
