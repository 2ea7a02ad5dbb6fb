// A file of flags in YAML: refused with a sentence, or arguments for flags that there are.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "launcher/config_file.h"
#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lorikeet;
  CLI::App app;
  std::string model, length;
  std::vector<std::string> modules;
  bool flag = false;
  app.add_option("MODEL,--model", model);
  app.add_option("--max-model-len", length);
  app.add_option("--lora-modules", modules);
  app.add_flag("--log-json", flag);
  launcher::add_config_flag(app);
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::string path = fuzz::put("config", &text);
  const auto arguments = launcher::expand_config_file(app, {"--config", path, "--max-model-len=1"});
  if (!fuzz::succeeded(arguments)) return 0;
  for (size_t i = 0; i < arguments->size(); ++i) {
    fuzz::require((*arguments)[i].rfind("--config", 0) != 0 || i > 1);  // of values anything may be said
  }
  return 0;
}
