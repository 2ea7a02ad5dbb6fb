#include "actors/head/adapter_directories.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "tests/temp_dir.h"

namespace lorikeet::actors {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class AdapterDirectoriesTest : public ::testing::Test {
 protected:
  AdapterDirectoriesTest() {
    make_adapter("allowed/moby");
    make_adapter("outside/kjv");
    fs::create_directories(dir_ / "more");
    directories_ = AdapterDirectories({(dir_ / "more").string(), (dir_ / "allowed").string()});
  }

  void make_adapter(const std::string& at) {
    tests::write_file(dir_ / (at + "/adapter_config.json"), "{}");
    tests::write_file(dir_ / (at + "/adapter_model.safetensors"), "");
  }
  std::string path(const std::string& below) const { return (dir_ / below).string(); }

  // The directory without links, or the refusal.
  std::string locate(const std::string& given) const {
    const auto found = directories_.locate("x", given);
    return found ? *found : found.error().code + ": " + found.error().message;
  }
  std::string real(const std::string& below) const { return fs::canonical(dir_ / below).string(); }

  // Of what there is elsewhere.
  void expect_nothing_said_by_links_below(const fs::path& root) {
    const auto link_to = [&root](const fs::path& target) {
      fs::remove(root / "links/x");
      fs::create_symlink(target, root / "links/x");
    };
    for (const char* target : {"outside/kjv", "outside/none", "none/at/all"}) {
      link_to(dir_ / target);
      EXPECT_EQ(locate("links/x"),
                "forbidden: links/x is not below " + path("more") + ", " + path("allowed") + " (--lora-dir)");
      EXPECT_THAT(locate("links/x/below"), StartsWith("forbidden: links/x/below is not below "));
    }
    link_to("../moby");
    EXPECT_EQ(locate("links/x"), fs::canonical(root / "moby").string());
    link_to("../not-yet");
    EXPECT_EQ(locate("links/x"), "adapter_not_found: Loading lora x failed: No adapter found for links/x");
    link_to("x");
    EXPECT_THAT(locate("links/x"), StartsWith("forbidden: links/x is not below "));
    for (const char* target : {"adapter_config.json", "../../outside/none", "../../outside/kjv/adapter_config.json"}) {
      fs::remove(root / "moby/adapter_config.json");
      fs::create_symlink(target, root / "moby/adapter_config.json");
      EXPECT_THAT(locate("moby"), StartsWith("forbidden: moby/adapter_config.json leads to a file that is not below"));
    }
  }

  tests::TempDir dir_;
  AdapterDirectories directories_;
};

TEST_F(AdapterDirectoriesTest, FindsWhatLiesBelowOne) {
  EXPECT_EQ(locate(path("allowed/moby")), real("allowed/moby"));
  EXPECT_EQ(locate(path("allowed/../allowed/./moby/")), real("allowed/moby"));
  EXPECT_EQ(locate("moby"), real("allowed/moby"));
  fs::create_directory_symlink("moby", dir_ / "allowed/latest");
  EXPECT_EQ(locate("latest"), real("allowed/moby"));
}

TEST_F(AdapterDirectoriesTest, FindsFilesThatAreLinksToOthersBelowOne) {
  tests::write_file(dir_ / "more/blob", "{}");
  fs::remove(dir_ / "allowed/moby/adapter_config.json");
  fs::create_symlink(dir_ / "more/blob", dir_ / "allowed/moby/adapter_config.json");
  EXPECT_EQ(locate("moby"), real("allowed/moby"));
}

TEST_F(AdapterDirectoriesTest, RefusesWhatLiesOutsideWhetherItIsThereOrNot) {
  for (const char* given :
       {"outside/kjv", "outside/none", "allowed/../outside/kjv", "allowed-too", "allowed/none/../../outside"}) {
    EXPECT_THAT(locate(path(given)), StartsWith("forbidden: " + path(given) + " is not below ")) << given;
  }
  EXPECT_THAT(locate("../outside/kjv"), StartsWith("forbidden: "));
  EXPECT_THAT(locate("/"), StartsWith("forbidden: "));
}

TEST_F(AdapterDirectoriesTest, LooksAtNoOtherPlacesOnItsWay) {
  fs::create_directory_symlink(dir_ / "allowed", dir_ / "outside/link");
  for (const char* by :
       {"outside/kjv/../../allowed/moby", "outside/none/../../allowed/moby", "outside/link/../../allowed/moby"}) {
    EXPECT_EQ(locate(path(by)), real("allowed/moby")) << by;
  }
  EXPECT_EQ(locate("none/../moby"), real("allowed/moby"));
  for (const char* by : {"outside/link/moby", "outside/none/moby"}) {
    EXPECT_THAT(locate(path(by)), StartsWith("forbidden: " + path(by) + " is not below ")) << by;
  }
  for (const char* by : {"../allowed/moby", "../outside/none/../../allowed/moby", "..", "moby/../.."}) {
    EXPECT_THAT(locate(by), StartsWith(std::string("forbidden: ") + by + " is not below ")) << by;
  }
  // A root by the name that it was given.
  fs::create_directory_symlink(dir_ / "allowed", dir_ / "current");
  directories_ = AdapterDirectories({path("current")});
  EXPECT_EQ(locate(path("current/moby")), real("allowed/moby"));
  EXPECT_EQ(locate(path("allowed/moby")), real("allowed/moby"));
}

TEST_F(AdapterDirectoriesTest, RefusesLinksThatLeadOut) {
  fs::create_directory_symlink(dir_ / "outside/kjv", dir_ / "allowed/escape");
  EXPECT_THAT(locate("escape"), StartsWith("forbidden: escape is not below "));
  fs::remove(dir_ / "allowed/moby/adapter_model.safetensors");
  fs::create_symlink(dir_ / "outside/kjv/adapter_model.safetensors", dir_ / "allowed/moby/adapter_model.safetensors");
  EXPECT_THAT(locate("moby"),
              StartsWith("forbidden: moby/adapter_model.safetensors leads to a file that is not below"));
}

TEST_F(AdapterDirectoriesTest, SaysAsVllmWhatIsMissing) {
  EXPECT_EQ(locate("none"), "adapter_not_found: Loading lora x failed: No adapter found for none");
  fs::remove(dir_ / "allowed/moby/adapter_model.safetensors");
  EXPECT_EQ(locate("moby"),
            "adapter_not_found: Loading lora x failed: No adapter found for moby/adapter_model.safetensors");
}

// What the operating system refuses to others than root, which tests often are.
TEST_F(AdapterDirectoriesTest, SaysThatADirectoryMayNotBeRead) {
  const uid_t self = geteuid();
  fs::permissions(dir_.path(), fs::perms::all);
  fs::permissions(dir_ / "allowed/moby", fs::perms::none);
  fs::permissions(dir_ / "allowed", fs::perms::all);
  if (self == 0 && seteuid(65534) != 0) {
    fs::permissions(dir_ / "allowed/moby", fs::perms::owner_all);
    GTEST_SKIP() << "root cannot become anybody else here";
  }
  const std::string said = locate("moby");
  if (self == 0) ASSERT_EQ(seteuid(self), 0);
  fs::permissions(dir_ / "allowed/moby", fs::perms::owner_all);
  EXPECT_EQ(said, "adapter_failed: moby/adapter_config.json: Permission denied");
}

// Who may make links below a directory does not learn by them what there is elsewhere.
TEST_F(AdapterDirectoriesTest, AnswersForALinkOfWhereItLeadsWhetherThatIsThereOrNot) {
  for (const char* root : {"more", "allowed"}) {
    make_adapter(std::string(root) + "/moby");
    fs::create_directory(dir_ / root / "links");
    expect_nothing_said_by_links_below(dir_ / root);
    fs::remove_all(dir_ / root);
    fs::create_directory(dir_ / root);
  }
}

TEST_F(AdapterDirectoriesTest, LooksBelowTheNextWhereTheFirstIsNotThere) {
  fs::remove(dir_ / "more");
  EXPECT_EQ(locate("moby"), real("allowed/moby"));
  EXPECT_THAT(locate("../outside/kjv"), StartsWith("forbidden: "));
}

TEST_F(AdapterDirectoriesTest, RefuseEveryPathWhereThereIsNone) {
  const auto found = AdapterDirectories().locate("x", path("allowed/moby"));
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code, "forbidden");
  EXPECT_THAT(found.error().message, HasSubstr("--lora-dir"));
}

}  // namespace
}  // namespace lorikeet::actors
