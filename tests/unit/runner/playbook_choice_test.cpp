#include "necrocode/runner/playbook_choice.hpp"

#include <gmock/gmock.h>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"

namespace necrocode::runner {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr const char* kUrl = "https://git.example/team/app.git";

class ChoosingPlaybooks : public testing::Test {
 protected:
  ChoosingPlaybooks() {
    places_.directory = folder_.path() / "books";
    fs::create_directories(places_.directory);
    book("books/kept.yaml", "kept");
    book("default.yaml", "default");
    book("given.yaml", "given");
    book("outside.yaml", "outside");
  }
  void book(const std::string& path, const std::string& command) {
    write_file_atomic(folder_.path() / path, "steps: [{name: S, command: " + command + "}]\n");
  }
  ChosenPlaybook choose() {
    return choose_playbook(
        task_, url_, places_,
        [this](const std::string& path) -> std::optional<std::string> {
          asked_.push_back(path);
          if (path != "ci/own.yaml") return std::nullopt;
          return "steps: [{name: S, command: own}]";
        },
        {"detected"}, retries_);
  }
  std::vector<std::string> commands() { return choose().playbook.commands(); }
  std::string problem() {
    try {
      choose();
      return {};
    } catch (const PlaybookExecutionError& error) {
      return error.summary();
    }
  }

  TemporaryDirectory folder_;
  TaskContext task_{*TaskId::parse("app:1")};
  PlaybookPlaces places_;
  std::string url_ = kUrl;
  std::vector<std::string> asked_;
  int retries_ = 0;
};

TEST_F(ChoosingPlaybooks, WithoutOneTheTasksCommandsElseWhatTheRepositorySuggests) {
  EXPECT_THAT(commands(), ElementsAre("detected"));
  task_.test_commands = {"own one", "own {{ two"};
  EXPECT_THAT(commands(), ElementsAre("own one", "own {{ two"));
}

TEST_F(ChoosingPlaybooks, FurtherAttemptsThenOfCommandsThatNoPlaybookNames) {
  retries_ = 3;
  EXPECT_EQ(choose().playbook.steps.at(0).retry_count, 3);
  task_.playbook_path = "kept.yaml";
  task_.test_commands = {"target"};
  EXPECT_EQ(choose().playbook.steps.at(0).retry_count, 0);
  EXPECT_EQ(choose().playbook.steps.at(1).retry_count, 3);
}

TEST_F(ChoosingPlaybooks, OneOfTheOperatorsFolderThenTheTasksCommands) {
  task_.playbook_path = "kept.yaml";
  task_.test_commands = {"target"};
  EXPECT_THAT(commands(), ElementsAre("kept", "target"));
  task_.playbook_path = (places_.directory / "kept.yaml").string();
  EXPECT_THAT(commands(), ElementsAre("kept", "target"));
  EXPECT_THAT(asked_, IsEmpty());
  const ChosenPlaybook chosen = choose();
  EXPECT_FALSE(chosen.playbook.steps[0].target);
  EXPECT_TRUE(chosen.playbook.steps[1].target);
  task_.test_commands.clear();
  EXPECT_TRUE(choose().playbook.steps[0].target);
}

TEST_F(ChoosingPlaybooks, WhatLeadsOutOfTheFolderIsNotInIt) {
  fs::create_symlink(folder_.path() / "outside.yaml", places_.directory / "link.yaml");
  for (const char* path : {"../outside.yaml", "link.yaml", "."}) {
    task_.playbook_path = path;
    const ChosenPlaybook chosen = choose();
    EXPECT_THAT(chosen.playbook.commands(), ElementsAre("detected")) << path;
    EXPECT_THAT(chosen.warnings, ElementsAre(HasSubstr("is not used"))) << path;
  }
  task_.playbook_path = (folder_.path() / "outside.yaml").string();
  EXPECT_THAT(problem(), HasSubstr("is not in the folder of playbooks.directory"));
}

TEST_F(ChoosingPlaybooks, OfAnUntrustedRepositoryNothingIsRead) {
  task_.playbook_path = "ci/own.yaml";
  places_.trusted_repositories = {"https://git.example/other/*"};
  const ChosenPlaybook chosen = choose();
  EXPECT_THAT(chosen.playbook.commands(), ElementsAre("detected"));
  EXPECT_THAT(chosen.warnings, SizeIs(1));
  EXPECT_THAT(asked_, IsEmpty());
}

TEST_F(ChoosingPlaybooks, OfATrustedOneAsItStands) {
  task_.playbook_path = "ci/own.yaml";
  places_.trusted_repositories = {"https://git.example/team/*"};
  EXPECT_THAT(commands(), ElementsAre("own"));
  task_.playbook_path = "ci/none.yaml";
  EXPECT_THAT(problem(), HasSubstr("neither in playbooks.directory nor a file"));
}

TEST_F(ChoosingPlaybooks, AUrlThatMeansAnotherPlaceIsNotTrusted) {
  places_.trusted_repositories = {"https://git.example/team/**", "/srv/git/"};
  for (const char* url : {"https://git.example/team/../evil/r", "https://git.example/team/./r",
                          "https://git.example/team//r", "https://git.example/team/%2e%2e/evil/r",
                          "/srv/git/../../evil.git", "https://git.example/evil/r"}) {
    url_ = url;
    task_.playbook_path = "ci/own.yaml";
    EXPECT_THAT(choose().warnings, SizeIs(1)) << url;
  }
  for (const char* url : {"https://git.example/team/a/b.git", "/srv/git/a.git"}) {
    url_ = url;
    EXPECT_THAT(commands(), ElementsAre("own")) << url;
  }
}

TEST_F(ChoosingPlaybooks, AFolderThatIsNotThereIsAnErrorAndNoReasonToDoWithout) {
  places_.directory = folder_.path() / "gone";
  task_.playbook_path = "kept.yaml";
  EXPECT_THAT(problem(), HasSubstr("playbooks.directory cannot be used"));
}

TEST_F(ChoosingPlaybooks, TheDefaultWhereNoneIsNamedAndTheGivenOneAlways) {
  places_.fallback = folder_.path() / "default.yaml";
  EXPECT_THAT(commands(), ElementsAre("default"));
  task_.playbook_path = "kept.yaml";
  EXPECT_THAT(commands(), ElementsAre("kept"));
  places_.file = folder_.path() / "given.yaml";
  EXPECT_THAT(commands(), ElementsAre("given"));
  places_.file = folder_.path() / "none.yaml";
  EXPECT_THAT(problem(), HasSubstr("cannot be read"));
}

}  // namespace
}  // namespace necrocode::runner
