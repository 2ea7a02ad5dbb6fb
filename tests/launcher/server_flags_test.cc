#include "launcher/server_flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "launcher/adapter_memory.h"
#include "launcher/lora_modules.h"
#include "model/config/config.h"
#include "model/forward/step_cost.h"
#include "tests/launcher/process.h"
#include "tests/model/checkpoint/safetensors_writer.h"
#include "tests/temp_dir.h"

namespace lorikeet::launcher {
namespace {

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
    ServerFlags flags;
    return parse(std::move(arguments), flags);
  }
  static Result<actors::ServerOptions> parse(std::vector<std::string> arguments, ServerFlags& flags) {
    CLI::App app;
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

TEST_F(Flags, TakeWhatVllmCallsToolsReasoningAndTemplates) {
  const auto options =
      parse({"--model", model_, "--enable-auto-tool-choice", "--tool-call-parser", "qwen3_coder", "--reasoning-parser",
             "qwen3", "--default-chat-template-kwargs", R"({"enable_thinking": false})",
             "--chat-template-content-format", "openai", "--trust-request-chat-template"});
  ASSERT_TRUE(options) << options.error().message;
  EXPECT_TRUE(options->chat.enable_auto_tool_choice);
  EXPECT_EQ(options->chat.tool_call_parser, "qwen3_coder");
  EXPECT_EQ(options->chat.reasoning_parser, "qwen3");
  EXPECT_EQ(options->chat.default_template_kwargs, R"({"enable_thinking": false})");
  EXPECT_EQ(options->chat.content_format, "openai");
  EXPECT_TRUE(options->chat.trust_request_template);
  const auto error = [this](std::vector<std::string> more) {
    more.insert(more.begin(), {"--model", model_});
    const auto refused = parse(more);
    return refused ? std::string("none") : refused.error().message;
  };
  EXPECT_EQ(error({"--enable-auto-tool-choice"}), "--enable-auto-tool-choice needs --tool-call-parser");
  EXPECT_EQ(error({"--default-chat-template-kwargs", "[]"}), "--default-chat-template-kwargs []: give a JSON object");
  EXPECT_NE(error({"--tool-call-parser", "pythonic"}), "none");
  EXPECT_NE(error({"--reasoning-parser", "granite"}), "none");
}

TEST_F(Flags, RefuseAChatTemplateThatIsNone) {
  EXPECT_TRUE(parse({model_, "--device", "cpu", "--chat-template", "qwen2.5"}));
  const tests::TempDir dir;
  tests::write_file(dir / "own.jinja", std::string("{{ messages }}"));
  EXPECT_TRUE(parse({model_, "--device", "cpu", "--chat-template", (dir / "own.jinja").string()}));
  EXPECT_THAT(
      parse({model_, "--device", "cpu", "--chat-template", "bogus"}).error().message,
      testing::HasSubstr("--chat-template bogus: there is no such file, nor a chat template of that name; known are "));
}

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

TEST_F(Flags, TakeSeveralNamesOfTheBaseModel) {
  const auto options = parse({"--served-model-name", "a", "b", "a", "b", "c", "--max-loras", "2", "--model", model_});
  ASSERT_TRUE(options) << options.error().message;
  EXPECT_EQ(options->served_model_name, "a");
  EXPECT_THAT(options->more_model_names, testing::ElementsAre("b", "c"));
  const auto before_the_model = parse({"--served-model-name", "a", model_});
  ASSERT_TRUE(before_the_model) << before_the_model.error().message;
  EXPECT_TRUE(before_the_model->more_model_names.empty());
  const auto taken = parse({"--model", model_, "--served-model-name", "a", "b", "--lora-modules", "b=" + adapter_});
  ASSERT_FALSE(taken);
  EXPECT_THAT(taken.error().message, testing::HasSubstr("'b' is the name of the base model"));
}

TEST_F(Flags, RefuseAnAdapterThatIsNamedAsTheBaseModel) {
  const auto options = parse({"--model", model_, "--served-model-name", "a", "--lora-modules", "a=" + adapter_});
  ASSERT_FALSE(options.has_value());
  EXPECT_NE(options.error().message.find("is the name of the base model"), std::string::npos);
}

TEST_F(Flags, RefuseAnAdapterThatIsNamedAsSubmitNamesTheBaseModel) {
  const auto options = parse({"--model", model_, "--lora-modules", "-=" + adapter_});
  ASSERT_FALSE(options.has_value());
  EXPECT_THAT(options.error().message, testing::HasSubstr("'-' stands for the base model"));
}

TEST_F(Flags, SayWhyADirectoryCannotBeLookedAt) {
  tests::TempDir scratch;
  const std::string loop = (scratch / "loop").string(), file = (scratch / "file").string();
  std::filesystem::create_symlink("loop", loop);
  std::ofstream(file).put('x');
  for (const auto& [path, why] : {std::pair{loop, "cannot be looked at: Too many levels of symbolic links"},
                                  {file, "is not a directory"},
                                  {file + "/below", "cannot be looked at: Not a directory"},
                                  {scratch.path().string() + "/none", "is not a directory"}}) {
    const auto module = parse({"--model", model_, "--device", "cpu", "--lora-modules", "a=" + path});
    ASSERT_FALSE(module);
    EXPECT_EQ(module.error().message, "--lora-modules a: " + path + " " + why);
    const auto dir = parse({"--model", model_, "--device", "cpu", "--lora-dir", path});
    ASSERT_FALSE(dir);
    EXPECT_EQ(dir.error().message, "--lora-dir " + path + ": it " + why);
  }
}

TEST_F(Flags, LetClientsLoadAdaptersFromDirectoriesAlone) {
  EXPECT_FALSE(parse({"--model", model_, "--device", "cpu"})->runtime_lora_updating);
  const auto without = parse({"--model", model_, "--device", "cpu", "--enable-runtime-lora-updating"});
  ASSERT_FALSE(without);
  EXPECT_THAT(without.error().message, testing::HasSubstr("--lora-dir"));
  const auto options = parse({"--model", model_, "--device", "cpu", "--enable-runtime-lora-updating", "--lora-dir",
                              "/tmp", "--lora-dir", "/usr/../tmp"});
  ASSERT_TRUE(options) << options.error().message;
  EXPECT_TRUE(options->runtime_lora_updating);
  EXPECT_EQ(options->lora_dirs, (std::vector<std::string>{"/tmp", "/tmp"}));
  EXPECT_FALSE(parse({"--model", model_, "--device", "cpu", "--lora-dir", "/nowhere"}));
  setenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "1", 1);
  const auto by_environment = parse({"--model", model_, "--device", "cpu"});
  unsetenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING");
  ASSERT_TRUE(by_environment) << by_environment.error().message;
  EXPECT_TRUE(by_environment->runtime_lora_updating);
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

TEST_F(Flags, TakeTheFlagsOfVllmOnWhichNothingDepends) {
  ServerFlags flags;
  const auto options =
      parse({"--enforce-eager", "--swap-space", "4", "--trust-remote-code", "--no-use-tqdm-on-load", model_}, flags);
  ASSERT_TRUE(options.has_value()) << options.error().message;
  EXPECT_THAT(flags.foreign.harmless,
              testing::ElementsAre(testing::HasSubstr("--enforce-eager: "), testing::HasSubstr("--swap-space: "),
                                   "--trust-remote-code: no code is ever loaded from a checkpoint",
                                   testing::HasSubstr("--no-use-tqdm-on-load: ")));
}

TEST_F(Flags, TakeALineThatWasWrittenForVllm) {
  ServerFlags flags;
  const std::vector<std::string> words = {model_,      "--download-dir",
                                          "/models",   "--num-scheduler-steps",
                                          "8",         "--model-impl",
                                          "auto",      "--config-format",
                                          "auto",      "--response-role",
                                          "assistant", "--preemption-mode",
                                          "recompute", "--long-prefill-token-threshold",
                                          "512",       "--stream-interval",
                                          "1",         "--calculate-kv-scales"};
  const auto options = parse(words, flags);
  ASSERT_TRUE(options) << options.error().message;
  EXPECT_EQ(flags.foreign.harmless.size(), 9U);
  const std::pair<const char*, const char*> refused[] = {{"--rope-scaling", R"({"rope_type": "yarn"})"},
                                                         {"--kv-transfer-config", "{}"},
                                                         {"--num-gpu-blocks-override", "512"},
                                                         {"--stream-interval", "10"},
                                                         {"--response-role", "bot"}};
  for (const auto& [flag, value] : refused) {
    const auto other = parse({model_, flag, value});
    ASSERT_FALSE(other) << flag;
    EXPECT_THAT(other.error().message, testing::StartsWith(flag));
  }
}

TEST_F(Flags, TakeTheValuesOfVllmsFlagsThatNameWhatIsDoneHere) {
  ServerFlags flags;
  const std::vector<std::string> fitting = {
      model_, "--scheduling-policy", "fcfs", "--logprobs-mode", "raw_logprobs", "--generation-config",
      "auto", "--api-server-count",  "4"};
  const auto taken = parse(fitting, flags);
  ASSERT_TRUE(taken) << taken.error().message;
  EXPECT_EQ(flags.foreign.harmless.size(), 4U);
  const std::pair<const char*, const char*> refused[] = {
      {"--scheduling-policy", "priority"},       {"--logprobs-mode", "processed_logits"},
      {"--generation-config", "vllm"},           {"--runner", "pooling"},
      {"--override-generation-config", R"({})"}, {"--uds", "/tmp/x"}};
  for (const auto& [flag, value] : refused) {
    const auto options = parse({model_, flag, value});
    ASSERT_FALSE(options) << flag;
    EXPECT_THAT(options.error().message, testing::StartsWith(flag));
  }
  EXPECT_THAT(parse({model_, "--scheduling-policy", "priority"}).error().message,
              testing::StartsWith("--scheduling-policy priority: "));
}

TEST_F(Flags, TakeVllmsOtherNamesForValues) {
  ServerFlags flags;
  const auto taken = parse(
      {model_, "--kv-cache-dtype", "fp8_e4m3", "--tool-call-parser", "qwen3_xml", "--load-format", "runai_streamer",
       "--max-num-batched-tokens", "2K", "--compilation-config", ".mode=3", "--compilation-config", ".level=0"},
      flags);
  ASSERT_TRUE(taken) << taken.error().message;
  EXPECT_EQ(taken->kv_cache_dtype, "fp8");
  EXPECT_EQ(taken->chat.tool_call_parser, "qwen3_coder");
  EXPECT_EQ(taken->load_format, "auto");
  EXPECT_EQ(taken->max_num_batched_tokens, 2048);
  EXPECT_EQ(flags.foreign.harmless.size(), 1u);
  EXPECT_FALSE(parse({model_, "--max-num-batched-tokens", "2X"}));
  EXPECT_FALSE(parse({model_, "--kv-cache-dtype", "fp8_e5m2"}));
}

TEST(SpeltOut, GivesVllmsOtherWaysToWriteAFlagTheirLongForm) {
  CLI::App app;
  ServerFlags flags;
  add_server_flags(app, flags);
  using testing::ElementsAre;
  EXPECT_THAT(spelt_out(app, {"m", "-tp", "2", "-pp=3", "-q", "gptq"}),
              ElementsAre("m", "--tensor-parallel-size", "2", "--pipeline-parallel-size=3", "-q", "gptq"));
  EXPECT_THAT(spelt_out(app, {"-O3", "-O", "2", "--max_model_len=1k", "--served_model_name", "a_b"}),
              ElementsAre("--optimization-level", "3", "--optimization-level", "2", "--max-model-len=1k",
                          "--served-model-name", "a_b"));
  EXPECT_THAT(spelt_out(app, {"-O.mode=3", "-cc.mode=3", "--compilation_config.level=0", "-cc", "{}", "-x.mode=3"}),
              ElementsAre("--optimization-level", ".mode=3", "--compilation-config", ".mode=3", "--compilation-config",
                          ".level=0", "--compilation-config", "{}", "-x.mode=3"));
  EXPECT_THAT(
      spelt_out(app, {"--enable-prefix-caching=True", "--enforce_eager=False", "--revision=True", "--log-json"}),
      ElementsAre("--enable-prefix-caching=true", "--enforce-eager=false", "--revision=True", "--log-json"));
  EXPECT_THAT(spelt_out(app, {"--no_such", "-x", "-", "--", "-tp"}), ElementsAre("--no_such", "-x", "-", "--", "-tp"));
  CLI::App other;
  EXPECT_THAT(spelt_out(other, {"-tp", "-O3"}), ElementsAre("-tp", "-O3")) << "a command without the flags";
}

TEST_F(Flags, ExplainAllFlagsOfVllmAtOnceThatWouldNotBeObeyed) {
  const auto options = parse({model_, "--pipeline-parallel-size", "2", "--enforce-eager", "--cpu-offload-gb", "4"});
  ASSERT_FALSE(options.has_value());
  EXPECT_EQ(options.error().message,
            "--pipeline-parallel-size: the model is cut by tensor parallelism only; use --tensor-parallel-size\n"
            "--cpu-offload-gb: weights stay on the device; use more ranks");
}

TEST_F(Flags, TakeTheModelWithAndWithoutItsFlag) {
  EXPECT_EQ(parse({model_, "--device", "cpu"}).value().model, model_);
  EXPECT_EQ(parse({"--model", model_, "--device", "cpu"}).value().model, model_);
}

TEST_F(Flags, TakeVllmsNamesOfKernelsForTheCheckpointsThatTheyServe) {
  for (const char* method : {"gptq_marlin", "auto-round", "inc"}) {
    EXPECT_TRUE(parse({model_, "--quantization", method}).has_value()) << method;
  }
  EXPECT_EQ(parse({model_, "--quantization", "awq_marlin"}).error().message,
            "--quantization awq: the checkpoint is gptq");
}

TEST_F(Flags, ComputeInFloat32OnTheCpuWhateverTheDtype) {
  for (const char* dtype : {"float32", "float", "bf16", "bfloat16", "half", "auto"}) {
    EXPECT_TRUE(parse({model_, "--device", "cpu", "--dtype", dtype}).has_value()) << dtype;
  }
}

TEST_F(Flags, RoundActivationsOnTheCpuOnlyWhereAsked) {
  EXPECT_EQ(parse({model_, "--device", "cpu"}).value().cpu_activations, "float32");
  EXPECT_EQ(parse({model_, "--device", "cpu", "--cpu-activations", "int8"}).value().cpu_activations, "int8");
  EXPECT_FALSE(parse({model_, "--device", "cpu", "--cpu-activations", "int4"}).has_value());
}

TEST_F(Flags, TakeLengthsAndMemoryAsPeopleWriteThem) {
  const auto options = parse({model_, "--device", "cpu", "--max-model-len", "1k", "--kv-cache-memory-bytes", "8MiB",
                              "--max-cpu-lora-bytes", "2GB"})
                           .value();
  EXPECT_EQ(options.max_model_len, 1000);
  EXPECT_EQ(options.kv_cache_memory_bytes, 8u << 20);
  EXPECT_EQ(options.max_cpu_lora_bytes, 2'000'000'000u);
}

TEST_F(Flags, GiveAdaptersAShareOfTheMemoryUnlessTheySayHowMuch) {
  const auto by_itself = parse({model_, "--device", "cpu"}).value();
  EXPECT_GE(by_itself.max_loras, kFewestSlots);
  EXPECT_LE(by_itself.max_loras, kMostSlots);
  EXPECT_GT(by_itself.lora_memory_bytes, 0u);
  EXPECT_GT(by_itself.max_cpu_lora_bytes, by_itself.lora_memory_bytes);
  EXPECT_EQ(by_itself.max_cpu_loras, 0);
  const auto asked = parse({model_, "--device", "cpu", "--max-loras", "3", "--max-cpu-loras", "5"}).value();
  EXPECT_EQ(asked.max_loras, 3);
  EXPECT_EQ(asked.lora_memory_bytes, 0u) << "as many as there are slots";
  EXPECT_EQ(asked.max_cpu_loras, 5);
  for (const char* wrong : {"some", "-1", "70000"}) {
    const auto refused = parse({model_, "--device", "cpu", "--max-loras", wrong});
    ASSERT_FALSE(refused) << wrong;
    EXPECT_THAT(refused.error().message, testing::HasSubstr("--max-loras " + std::string(wrong) + ": give a value"));
  }
}

TEST_F(Flags, CountSlotsByWhatAnAdapterOfRank16Takes) {
  const auto config = model::read_model_config(model_).value();
  const auto plan = model::ShardPlan::make(config, 1).value();
  const uint64_t of_one = 16 * model::step_cost(plan, 0, {2, 2, 2}).adapter_bytes_per_rank;
  const auto choose = [&](uint64_t device, int32_t max_rank, int32_t ranks = 1, int32_t devices = 1) {
    actors::ServerOptions options;
    options.device = "cuda";
    options.max_lora_rank = max_rank;
    options.tensor_parallel_size = ranks;
    EXPECT_TRUE(choose_adapter_memory("auto", "1G", plan, {1ULL << 40, device, devices}, options));
    return options;
  };
  struct Row {
    uint64_t device;
    int32_t max_rank, slots;
  };
  for (const auto& [device, max_rank, slots] : {Row{16 * 100 * of_one, 512, 100},
                                                {16 * 100 * of_one, 16, 100},
                                                {16 * 100 * of_one, 8, 200},
                                                {16 * 100'000 * of_one, 512, kMostSlots},
                                                {16 * of_one, 512, kFewestSlots}}) {
    const auto options = choose(device, max_rank);
    EXPECT_EQ(options.max_loras, slots) << device << " bytes, rank " << max_rank;
    EXPECT_EQ(options.lora_memory_bytes, device / 16);
    EXPECT_EQ(options.max_cpu_lora_bytes, 1ULL << 30);
  }
  EXPECT_EQ(choose(16 * 100 * of_one, 512, 2, 1).lora_memory_bytes, 50 * of_one) << "two ranks share the device";
  EXPECT_EQ(choose(0, 512).max_loras, kSlotsUnknown) << "another host's device";
}

TEST_F(Flags, SayWhatAnAddressLacks) {
  const auto message = [&](const char* address) { return parse({model_, "--zmq", address}).error().message; };
  EXPECT_THAT(message("127.0.0.1:5555"), testing::HasSubstr("tcp:// is missing: give tcp://127.0.0.1:5555"));
  EXPECT_THAT(message("tcp://127.0.0.1"), testing::HasSubstr("has no port: give tcp://HOST:PORT"));
  EXPECT_THAT(message("http://127.0.0.1:80"), testing::HasSubstr("neither tcp://HOST:PORT nor ipc://PATH"));
}

TEST_F(Flags, PassThroughTheEncodedForm) {
  const auto options =
      parse({"--model", model_, "--kv-cache-memory-bytes", "8M", "--no-enable-prefix-caching"}).value();
  EXPECT_EQ(options.kv_cache_memory_bytes, 8u << 20);
  EXPECT_FALSE(options.enable_prefix_caching);
}

}  // namespace
}  // namespace lorikeet::launcher
