#include "necrocode/process/host_view.hpp"

#include <gmock/gmock.h>

#include "necrocode/base/file.hpp"

namespace necrocode::process {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Not;
using testing::Pair;

class HostViewTest : public testing::Test {
 protected:
  fs::path make(const std::string& name) {
    fs::create_directories(home_.path() / name);
    return home_.path() / name;
  }
  Toolchains find(const std::vector<fs::path>& folders) {
    return find_toolchains(folders, {home_.path()});
  }
  TemporaryDirectory home_;
};

TEST_F(HostViewTest, KnownToolchainShowsWhatItNeedsWithoutCredentials) {
  const fs::path bin = make(".cargo/bin");
  make(".cargo/registry");
  write_file_atomic(home_.path() / ".cargo/credentials.toml", "token");
  const fs::path rustup = make(".rustup");
  const Toolchains found = find({bin});
  EXPECT_THAT(found.visible, ElementsAre(bin, rustup));
  EXPECT_THAT(found.env, ElementsAre(Pair("RUSTUP_HOME", rustup.string())));
}

TEST_F(HostViewTest, PyenvIsShownOnceForAllItsFolders) {
  const Toolchains found = find({make(".pyenv/shims"), make(".pyenv/bin")});
  EXPECT_THAT(found.visible, ElementsAre(home_.path() / ".pyenv"));
  EXPECT_THAT(found.env, ElementsAre(Pair("PYENV_ROOT", (home_.path() / ".pyenv").string())));
}

TEST_F(HostViewTest, UnknownFolderShowsOnlyItself) {
  const fs::path tools = make("my/tools");
  EXPECT_THAT(find({tools}).visible, ElementsAre(tools));
}

TEST_F(HostViewTest, HomeAndWhatHoldsItAreNeverShown) {
  const fs::path link = make("links") / "home";
  fs::create_directory_symlink(home_.path(), link);
  EXPECT_THAT(find({home_.path(), home_.path().parent_path(), "/", "/opt", link}).visible,
              IsEmpty());
}

TEST_F(HostViewTest, SystemFoldersAndMissingOnesAddNothing) {
  const Toolchains found =
      find({"/usr/bin", "/bin", "/etc", "/proc/self", "/run", home_.path() / "none"});
  EXPECT_THAT(found.visible, IsEmpty());
  EXPECT_THAT(found.env, IsEmpty());
}

TEST(PathFolders, OnlyAbsoluteOnesAndEachOnce) {
  EXPECT_THAT(path_folders("/usr/bin::relative:.:/bin/../bin:/usr/bin:/bin"),
              ElementsAre("/usr/bin", "/bin"));
  EXPECT_THAT(path_folders(""), IsEmpty());
}

TEST(IsWithin, ComparesWholeNames) {
  EXPECT_TRUE(is_within("/a/b", "/a"));
  EXPECT_TRUE(is_within("/a", "/a"));
  EXPECT_TRUE(is_within("/a", "/a/"));
  EXPECT_TRUE(is_within("/a", "/"));
  EXPECT_FALSE(is_within("/ab", "/a"));
  EXPECT_FALSE(is_within("/", "/a"));
}

TEST(VisibleEtc, NeverHoldsCredentials) {
  const auto visible = visible_etc(false);
  EXPECT_THAT(visible, Contains(fs::path("/etc/passwd")));
  for (const char* hidden : {"/etc/shadow", "/etc/gshadow", "/etc/ssl/private", "/etc/ssh",
                             "/etc/ssl", "/etc/resolv.conf", "/etc/sudoers", "/etc/machine-id"}) {
    EXPECT_THAT(visible, Not(Contains(fs::path(hidden))));
  }
}

TEST(FindProgram, SkipsWhatCannotBeExecuted) {
  const TemporaryDirectory folder;
  fs::create_directory(folder.path() / "a");
  fs::create_directory(folder.path() / "b");
  fs::create_directory(folder.path() / "c");
  fs::create_directory(folder.path() / "a/tool");
  write_file_atomic(folder.path() / "b/tool", "", 0644);
  write_file_atomic(folder.path() / "c/tool", "", 0755);
  EXPECT_EQ(find_program({folder.path() / "a", folder.path() / "b", folder.path() / "c"}, "tool"),
            folder.path() / "c/tool");
  EXPECT_EQ(find_program({folder.path() / "a"}, "tool"), std::nullopt);
}

}  // namespace
}  // namespace necrocode::process
