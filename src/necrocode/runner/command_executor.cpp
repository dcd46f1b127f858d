#include "necrocode/runner/command_executor.hpp"

#include <algorithm>
#include <system_error>

#include "necrocode/agent/installation.hpp"
#include "necrocode/base/digest.hpp"
#include "necrocode/base/ids.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/runner/change_set.hpp"

namespace necrocode::runner {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kChangedFiles = 10'000;
// What is looked through for secrets before it is staged.
constexpr std::size_t kFileBytes = 2 * limits::kModelAnswerBytes;
constexpr std::size_t kLastWordsBytes = 500;
constexpr std::size_t kTranscriptBytes = 64 * limits::kKiB;
constexpr std::size_t kArgumentBytes = 100 * limits::kKiB;  // below the kernel's MAX_ARG_STRLEN

// Asked for once more with `resume`, a session knows its task.
constexpr std::string_view kTaskRules =
    "\nMake the change in the files of this folder. The commands above are run after you have "
    "ended, on the files that git would not ignore; you may run them too. The network is not "
    "reachable, git can only be read, and nobody answers questions.\n";

llm::Usage difference(const llm::Usage& now, const llm::Usage& before) {
  llm::Usage usage = now;
  usage.prompt_tokens -= before.prompt_tokens;
  usage.completion_tokens -= before.completion_tokens;
  usage.total_tokens -= before.total_tokens;
  usage.cached_tokens -= before.cached_tokens;
  usage.cache_write_tokens -= before.cache_write_tokens;
  usage.reasoning_tokens -= before.reasoning_tokens;
  if (usage.cost_usd) *usage.cost_usd -= before.cost_usd.value_or(0);
  return usage;
}

// An exchange that failed for good, as the model client would tell it.
[[noreturn]] void throw_as_the_models(const llm::ExchangeReport& failure) {
  ErrorInfo info;
  info.service = "llm";
  info.operation = "agent";
  info.target = failure.provider;
  info.status = failure.status;
  info.detail = failure.detail;
  info.attempts = 1;
  info.end = CallEnd::kPermanent;
  switch (failure.how) {
    case llm::ExchangeClass::kAuth:
      throw Unauthorized("the model service refused the key", std::move(info));
    case llm::ExchangeClass::kQuota:
      throw RateLimited("the quota at the model service is used up", std::move(info));
    case llm::ExchangeClass::kCap:
      throw llm::SpendCapReached("a spend cap is reached", std::move(info));
    case llm::ExchangeClass::kContext:
      throw ServiceError("the prompt is too long for the model", std::move(info));
    case llm::ExchangeClass::kRequest:
      throw ServiceError("the model service refused the request", std::move(info));
    case llm::ExchangeClass::kProtocol:  // no InvalidResponse: the program has asked again itself
      throw ServiceError("the model service's answer is none", std::move(info));
    case llm::ExchangeClass::kRate:
      info.end = CallEnd::kExhausted;
      throw RateLimited("the model service is rate limited", std::move(info));
    case llm::ExchangeClass::kOk:
    case llm::ExchangeClass::kGone:
    case llm::ExchangeClass::kUnavailable:
      break;
  }
  info.end = CallEnd::kExhausted;
  throw Unavailable("the model service is not available", std::move(info));
}

std::string last_words(const process::CommandResult& result, const Masker& masker) {
  const std::string said =
      std::string(trim(result.err.text().empty() ? result.out.text() : result.err.text()));
  const std::string masked = masker.mask(said);
  const std::string_view end =
      std::string_view(masked).substr(masked.size() - std::min(masked.size(), kLastWordsBytes));
  return printable(to_valid_utf8(end));
}

std::string ended(const process::CommandResult& result) {
  return result.end == process::CommandEnd::kSignalled
             ? "was ended by signal " + std::to_string(result.signal)
             : "ended with exit code " + std::to_string(result.exit_code);
}

std::string log_line(const llm::ExchangeReport& exchange) {
  return "exchange: " + exchange.provider + " " + exchange.path + ", " + exchange.model +
         ", status " + std::to_string(exchange.status) + ", " +
         std::to_string(exchange.usage.total_tokens) + " tokens" +
         (exchange.detail.empty() ? "" : ": " + exchange.detail);
}

}  // namespace

CommandExecutor::CommandExecutor(const agent::AgentAdapter& adapter, const AgentServices& services,
                                 const ExecutorScope& scope)
    : adapter_(adapter), services_(services), scope_(scope) {
  const std::string& program = adapter_.argv.front();
  std::string path;
  for (const std::string& variable : process::clean_environment()) {
    if (variable.starts_with("PATH=")) path = variable.substr(5);
  }
  const fs::path& root = scope_.workspace.root;
  if (agent::find_installation(program, path, root, root)) return;
  throw ConfigError("\"" + printable(program) + "\", the program of the agent \"" +
                    printable(adapter_.name) + "\", is not found; install it, or put it into PATH");
}

std::string CommandExecutor::prompt(const Assignment& assignment) const {
  const bool knows_its_task = session_ && !adapter_.resume.empty();
  std::string prompt =
      knows_its_task ? std::string() : describe_task(assignment) + std::string(kTaskRules);
  if (!assignment.failed_tests.empty()) {
    prompt += std::string(prompt.empty() ? "" : "\n") +
              "The change in the files does not pass yet. Mend it, on top of what is there.\n" +
              assignment.failed_tests;
  }
  if (!assignment.unusable_answer.empty()) {
    prompt += std::string(prompt.empty() ? "" : "\n") +
              "The last round could not be used: " + assignment.unusable_answer + "\n";
  }
  return prompt;
}

Implementation CommandExecutor::implement(const Assignment& assignment, const CallContext& context,
                                          llm::Spending& spending, Transcript& transcript) {
  if (!run_) open(context, spending);
  std::string asked = services_.masker.mask(prompt(assignment));
  std::replace(asked.begin(), asked.end(), '\0', ' ');  // no argument can hold it
  if (!adapter_.prompt_by_stdin) asked = head_and_tail(asked, kArgumentBytes);
  transcript.asked(asked);
  const agent::AgentRound round = run_program(asked, context);
  const llm::Usage usage = account(round.metered, spending);
  const bool by_itself = round.program.end == process::CommandEnd::kExited ||
                         round.program.end == process::CommandEnd::kSignalled;
  const Change change = by_itself ? look(assignment, context) : Change();
  require_ended_well(round, change);
  const auto& last = round.metered.last;
  const std::string model = last ? last->model : adapter_.model;
  const std::string output = services_.masker.mask(round.program.out.text());
  transcript.answered(model, head_and_tail(output, kTranscriptBytes), usage.to_json());
  require_usable(change, assignment, context);

  Implementation implementation;
  implementation.changed_files = change.files;
  implementation.explanation = last_words(round.program, services_.masker);
  implementation.model = model;
  implementation.attempts = 1;
  implementation.usage = usage;
  implementation.leaves_more = true;
  for (const std::string& file : change.files) {
    const auto content = read_workspace_file(assignment.root, file, kFileBytes);
    change_digest_ = sha256_hex(change_digest_ + file + '\0' + sha256_hex(content.value_or("")));
  }
  implementation.answer_digest = change_digest_;
  return implementation;
}

void CommandExecutor::open(const CallContext& context, const llm::Spending& spending) {
  llm::MeteredRunOptions options;
  options.account.run = scope_.task.task_id.str() + "-" + random_hex(8);
  options.account.owner = std::string(scope_.task.task_id.spec());
  options.caps.run_usd = spending.usd_left();
  options.caps.daily_usd = services_.daily_usd;
  options.deadline = context.deadline;
  options.on_exchange = [&log = scope_.log](const llm::ExchangeReport& exchange) {
    log.line(log_line(exchange));
  };
  gate_ = services_.sandbox.make_gate();
  run_ = services_.open_run(std::move(options));
}

agent::AgentRound CommandExecutor::run_program(const std::string& prompt,
                                               const CallContext& context) {
  const TestRunner::Workspace& seen = scope_.workspace;
  agent::AgentWorkspace workspace;
  workspace.root = seen.root;
  workspace.home = scope_.folder / "home";
  workspace.read_only = seen.read_only;
  workspace.covers = seen.covers;
  workspace.limits = services_.limits;
  for (const std::string& path : seen.protect) workspace.protect.push_back(seen.root / path);
  if (seen.covers.empty()) workspace.protect.push_back(seen.root / ".git");
  const agent::AgentValues values = {
      prompt, agent::endpoint_of(gate_), run_->key(), {}, workspace.home, seen.root};
  const agent::AgentCommand command = agent::command_of(adapter_, values, session_);
  scope_.log.line("agent program " + adapter_.name + (session_ ? ", its session resumed" : ""));
  session_ = true;
  const agent::AgentRound round =
      agent::run_agent(services_.sandbox, workspace, command, gate_, *run_, context,
                       [this](std::string_view piece) { scope_.log.output(piece); });
  scope_.log.flush();
  if (!round.found) throw ConfigError(name() + " is gone");
  scope_.log.line(name() + " " + ended(round.program) + ", after " +
                  std::to_string(round.metered.calls - counted_.calls) + " calls of the model");
  return round;
}

// What this round spent: the run's sums, less those of the rounds before.
llm::Usage CommandExecutor::account(const llm::Metered& metered, llm::Spending& spending) {
  const llm::Usage usage = difference(metered.usage, counted_.usage);
  spending.add(usage);
  spending.count_calls(metered.calls - counted_.calls);
  counted_ = metered;
  return usage;
}

CommandExecutor::Change CommandExecutor::look(const Assignment& assignment,
                                              const CallContext& context) const {
  Change change;
  for (const std::string& line : scope_.repository.status(true, context)) {
    // The second letter is the work tree's; of what is only staged it is a space.
    if (line.size() < 4 || line[1] == ' ') continue;
    std::string path = line.substr(3);
    const bool is_folder = path.ends_with('/');
    if (is_folder) path.pop_back();
    if (assignment.users_files.contains(path)) continue;
    if (is_folder) {
      change.repositories.push_back(path);
    } else if (matches_any(assignment.task.readonly_files, path)) {
      change.read_only.push_back(path);
    } else {
      change.files.push_back(path);
    }
  }
  return change;
}

// The service's failure is the reason of the program's, as far as it has failed.
void CommandExecutor::require_ended_well(const agent::AgentRound& round,
                                         const Change& change) const {
  const process::CommandResult& result = round.program;
  ErrorInfo info;
  info.operation = "agent";
  info.target = adapter_.name;
  if (result.end == process::CommandEnd::kCancelled) {
    info.end = CallEnd::kCancelled;
    throw TimeoutError(name() + " was stopped", std::move(info));
  }
  const bool changed_something = !change.files.empty() || !change.read_only.empty();
  switch (agent::judge(result, round.metered, changed_something)) {
    case agent::RoundEnd::kLimit:
      throw ResourceLimitError(name() + " " + result.limit_reached, std::move(info));
    case agent::RoundEnd::kModel:
      throw_as_the_models(*round.metered.failure);
    case agent::RoundEnd::kTime:
      info.end = CallEnd::kDeadline;
      throw TimeoutError(name() + " did not end in time", std::move(info));
    case agent::RoundEnd::kTests:
      break;
  }
  if (result.ok() || changed_something) return;
  info.detail = last_words(result, services_.masker);
  throw ImplementationError(name() + " " + ended(result) + " and changed nothing", std::move(info));
}

void CommandExecutor::require_usable(const Change& change, const Assignment& assignment,
                                     const CallContext& context) const {
  if (!change.read_only.empty()) {
    put_back(change.read_only, assignment, context);
    throw ImplementationError("these files are read-only, and are as before again: " +
                              printable(shorten(join(change.read_only, ", "), 1000)));
  }
  if (!change.repositories.empty()) {
    throw ImplementationError("there is a git repository in \"" +
                              printable(change.repositories.front()) +
                              "\", whose files are no change of this one");
  }
  if (change.files.size() > kChangedFiles) {
    throw ImplementationError("more than " + std::to_string(kChangedFiles) +
                              " files are changed or new");
  }
  for (const std::string& file : change.files) {
    std::error_code error;
    const fs::path path = assignment.root / file;
    if (fs::symlink_status(path, error).type() != fs::file_type::regular) continue;
    if (fs::file_size(path, error) <= kFileBytes) continue;
    throw ImplementationError("\"" + printable(file) + "\" is larger than " +
                              std::to_string(kFileBytes / limits::kMiB) + " MiB");
  }
  // After a failed test, doing nothing is an answer too: that of the round before.
  if (change.files.empty() && assignment.failed_tests.empty()) {
    throw ImplementationError("no file was changed");
  }
}

void CommandExecutor::put_back(const std::vector<std::string>& files, const Assignment& assignment,
                               const CallContext& context) const {
  for (const std::string& file : files) {
    if (std::binary_search(assignment.tracked_files.begin(), assignment.tracked_files.end(),
                           file)) {
      scope_.repository.run({"checkout-index", "--force", "--quiet", "--", file}, context);
    } else {
      std::error_code error;
      fs::remove(assignment.root / file, error);
    }
  }
}

}  // namespace necrocode::runner
