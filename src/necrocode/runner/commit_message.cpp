#include "necrocode/runner/commit_message.hpp"

#include "necrocode/base/placeholders.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::runner {
namespace {

constexpr std::size_t kTitleBytes = 72;

std::string own_trailer(const TaskContext& task) {
  return "Necrocode-Task: " + task.task_id.str();
}

}  // namespace

std::string commit_message(const TaskContext& task, const CommitStyle& style) {
  const std::vector<std::pair<std::string, std::string>> values = {
      {"task_id", task.task_id.str()},
      {"spec", std::string(task.task_id.spec())},
      {"number", std::string(task.task_id.number())},
      {"title", shorten(printable(task.title), kTitleBytes)}};
  std::string message = fill_placeholders(style.title, values) + "\n";
  if (!task.description.empty()) message += "\n" + task.description + "\n";
  message += "\n";
  for (const std::string& trailer : style.trailers) {
    message += fill_placeholders(trailer, values) + "\n";
  }
  return message + own_trailer(task) + "\n";
}

bool is_commit_of(std::string_view message, const TaskContext& task) {
  message = trim(message);
  const std::size_t paragraph = message.rfind("\n\n");
  if (paragraph != std::string_view::npos) message = message.substr(paragraph + 2);
  for (const std::string_view line : split(message, '\n')) {
    if (trim(line) == own_trailer(task)) return true;
  }
  return false;
}

}  // namespace necrocode::runner
