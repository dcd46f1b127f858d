#include "necrocode/agent/agent_runner.hpp"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include "necrocode/agent/home.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"
#include "support/agent_fakes.hpp"

namespace necrocode::agent {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;

class AgentRounds : public testing::Test {
 protected:
  AgentRounds() {
    workspace_.root = folder_.path() / "work";
    fs::create_directories(workspace_.root);
    workspace_.home = folder_.path() / "home";
  }
  AgentRound run(const std::vector<std::string>& argv, const CallContext& context = {}) {
    command_.argv = argv;
    return run_agent(sandbox_, workspace_, command_, {14700, {}}, run_, context, {});
  }
  std::string variable(const AgentRound& round, const std::string& name) {
    for (const std::string_view line : split(round.program.out.head, '\n')) {
      if (line.starts_with(name + "=")) return std::string(line.substr(name.size() + 1));
    }
    return "(not set)";
  }

  TemporaryDirectory folder_;
  process::Supervisor supervisor_;
  test::NotingSandbox sandbox_{supervisor_};
  test::Meter meter_;
  test::FakeMeteredRun run_{meter_};
  AgentCommand command_;
  AgentWorkspace workspace_;
};

TEST_F(AgentRounds, EnvironmentThenTheProxyTheHomeAndNothingOfOurs) {
  ::setenv("OPENAI_API_KEY", "the-real-key-0123", 1);
  ::setenv("GIT_DIR", "/elsewhere", 1);
  command_.env = {"MINE=1", "PAGER=less"};
  workspace_.env = {"MINE=2"};
  const AgentRound round = run({"env"});
  ASSERT_TRUE(round.program.ok()) << round.program.err.text();
  EXPECT_EQ(variable(round, "OPENAI_BASE_URL"), "http://127.0.0.1:14700/v1");
  EXPECT_EQ(variable(round, "ANTHROPIC_BASE_URL"), "http://127.0.0.1:14700");
  EXPECT_EQ(variable(round, "OPENAI_API_KEY"), "dummy-key-0123");
  EXPECT_EQ(variable(round, "ANTHROPIC_API_KEY"), "dummy-key-0123");
  EXPECT_EQ(variable(round, "HOME"), workspace_.home.string());
  EXPECT_EQ(variable(round, "MINE"), "2") << "the workspace's counts last";
  EXPECT_EQ(variable(round, "PAGER"), "less");
  EXPECT_EQ(variable(round, "GIT_TERMINAL_PROMPT"), "0");
  EXPECT_EQ(variable(round, "GIT_DIR"), "(not set)");
  for (const char* name : {"TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME",
                           "XDG_STATE_HOME", "XDG_RUNTIME_DIR"}) {
    const std::string folder = variable(round, name);
    EXPECT_TRUE(folder.starts_with(workspace_.home.string() + "/")) << name << " " << folder;
    EXPECT_TRUE(fs::is_directory(folder)) << name;
  }
  EXPECT_THAT(round.program.out.head, Not(HasSubstr("the-real-key")));
  ::unsetenv("OPENAI_API_KEY");
  ::unsetenv("GIT_DIR");
}

TEST_F(AgentRounds, CommandThenTheGateIsItsNetworkAndTheHomeIsWritable) {
  const fs::path tool = folder_.path() / "tool/agent";
  fs::create_directories(tool.parent_path());
  write_file_atomic(tool, "#!/bin/sh\necho $1 > result\ncat > input\n", 0755);
  workspace_.protect = {workspace_.root / ".git"};
  workspace_.limits.processes = 77;
  command_.input = "typed";
  const AgentRound round = run({tool.string(), "a b"});
  ASSERT_TRUE(round.program.ok()) << round.program.err.text();
  EXPECT_EQ(read_file(workspace_.root / "result", 100), "a b\n");
  EXPECT_EQ(read_file(workspace_.root / "input", 100), "typed");
  ASSERT_EQ(sandbox_.agents.size(), 1U);
  const process::SandboxedCommand& command = sandbox_.agents[0];
  EXPECT_EQ(sandbox_.ports.at(0), 14700);
  EXPECT_FALSE(command.network);
  EXPECT_EQ(command.workspace, workspace_.root);
  EXPECT_EQ(command.protect, workspace_.protect);
  EXPECT_THAT(command.writable, Contains(workspace_.home));
  EXPECT_THAT(command.read_only, Contains(tool));
  EXPECT_EQ(command.command.limits.processes, 77U);
  EXPECT_EQ(meter_.listeners, 1);
}

TEST_F(AgentRounds, NoSuchProgramThenNothingIsRun) {
  EXPECT_FALSE(run({"no-such-agent"}).found);
  EXPECT_TRUE(sandbox_.agents.empty());
  EXPECT_FALSE(fs::exists(workspace_.home));
}

TEST_F(AgentRounds, SecondRoundThenTheHomeIsAsTheFirstLeftIt) {
  command_.files = {{".agent/config.json", "{}"}};
  run({"sh", "-c", "echo session > $HOME/.agent/session; echo '[]' > $HOME/.agent/config.json"});
  struct stat status = {};
  ASSERT_EQ(::stat(workspace_.home.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700U);
  const AgentRound round = run({"sh", "-c", "cat $HOME/.agent/session $HOME/.agent/config.json"});
  EXPECT_EQ(round.program.out.head, "session\n[]\n");
}

TEST_F(AgentRounds, TimeRunsOutThenWhatTheServiceOwedItIsLookedAtBefore) {
  meter_.metered.calls = 1;
  meter_.metered.failure.emplace().how = llm::ExchangeClass::kUnavailable;
  // Once the program is gone, its exchange is only one that nobody waits for.
  sandbox_.after_agent = [this] { meter_.metered.failure.reset(); };
  const AgentRound round =
      run({"sleep", "60"}, CallContext().within(std::chrono::milliseconds{700}));
  EXPECT_EQ(round.program.end, process::CommandEnd::kTimedOut);
  ASSERT_TRUE(round.metered.failure);
  EXPECT_GT(meter_.silence_asked.count(), 0);
  EXPECT_LE(meter_.silence_asked, std::chrono::milliseconds{700} / 4) << "a quarter of its time";
  EXPECT_EQ(meter_.ended, 1) << "what was under way is counted too";
}

TEST_F(AgentRounds, EndsInTimeThenItsFiguresAreThoseOfTheEnd) {
  sandbox_.after_agent = [this] { meter_.metered.calls = 3; };
  const AgentRound round = run({"true"}, CallContext().within(std::chrono::seconds{60}));
  EXPECT_EQ(round.metered.calls, 3);
  EXPECT_EQ(meter_.silence_asked.count(), 0);
  EXPECT_EQ(meter_.ended, 0) << "another round may follow";
}

class Homes : public testing::Test {
 protected:
  std::string refusal() {
    try {
      make_home(home_, from_, {});
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "";
  }
  TemporaryDirectory folder_;
  fs::path from_ = folder_.path() / "template";
  fs::path home_ = folder_.path() / "run/home";
};

TEST_F(Homes, TemplateThenCopiedAndTheAdaptersFilesOnTop) {
  fs::create_directories(from_ / ".agent/skills");
  write_file_atomic(from_ / ".agent/config", "theirs", 0644);
  write_file_atomic(from_ / ".agent/skills/run", "#!/bin/sh", 0755);
  fs::create_symlink("skills/run", from_ / ".agent/link");
  make_home(home_, from_, {{".agent/config", "ours"}, {"new/file", "x"}});
  EXPECT_EQ(read_file(home_ / ".agent/config", 100), "ours");
  EXPECT_EQ(read_file(home_ / ".agent/link", 100), "#!/bin/sh");
  EXPECT_EQ(read_file(home_ / "new/file", 100), "x");
  EXPECT_EQ(fs::status(home_ / ".agent/skills/run").permissions(), fs::perms::owner_all);
  EXPECT_EQ(read_file(from_ / ".agent/config", 100), "theirs");
}

TEST_F(Homes, LinkThatLeadsElsewhereThenRefusedByName) {
  for (const char* target : {"/etc/passwd", "../outside", "a/../../b"}) {
    fs::remove_all(from_);
    fs::remove_all(home_);
    fs::create_directories(from_);
    fs::create_symlink(target, from_ / "link");
    EXPECT_THAT(refusal(), HasSubstr("has a link that leads elsewhere: link")) << target;
  }
}

TEST_F(Homes, TemplateThatIsNoFolderOrTooLargeThenRefused) {
  EXPECT_THAT(refusal(), HasSubstr("is no folder"));
  fs::remove_all(home_);
  fs::create_directories(from_);
  write_file_atomic(from_ / "large", "");
  fs::resize_file(from_ / "large", 257 * limits::kMiB);  // sparse
  EXPECT_THAT(refusal(), HasSubstr("is larger than 256 MiB"));
}

}  // namespace
}  // namespace necrocode::agent
