// Where the tests of the tokenizer find vocabularies and published test vectors.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

#include "model/tokenizer/tokenizer.h"
#include "tests/temp_dir.h"

namespace lorikeet::model::testing {

inline const std::filesystem::path kSource = LORIKEET_SOURCE_DIR;
inline const std::filesystem::path kTinyModel = kSource / "examples/models/tiny-qwen2-gptq-int4";
inline const std::filesystem::path kFixtures = kSource / "../shared/fixtures";  // what others published; may be absent
inline const std::filesystem::path kQwen2 = kFixtures / "qwen2-tokenizer";

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return std::string(std::istreambuf_iterator<char>(file), {});
}

inline nlohmann::json read_json(const std::filesystem::path& path) {
  return nlohmann::json::parse(read_text(path));
}

// Loads a tokenizer once per test program.
inline std::shared_ptr<const Tokenizer> load_tokenizer(const std::filesystem::path& dir) {
  static std::map<std::filesystem::path, std::shared_ptr<const Tokenizer>> loaded;
  auto& tokenizer = loaded[dir];
  if (!tokenizer) {
    auto result = Tokenizer::load(dir);
    if (!result) throw std::runtime_error(result.error().message);
    tokenizer = *result;
  }
  return tokenizer;
}

}  // namespace lorikeet::model::testing

#define LORIKEET_SKIP_WITHOUT(path)                                       \
  if (!std::filesystem::exists(path)) {                                   \
    GTEST_SKIP() << "the published fixture " << (path) << " is not here"; \
  }
