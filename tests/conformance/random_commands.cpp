#include "conformance/random_commands.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace necrocode::registry {
namespace {

struct Arg {
  const char* name;
  int values;   ///< 0 … values - 1
  int percent;  ///< how often it is not 0
};
struct KindOfCommand {
  const char* name;
  int weight;
  std::vector<Arg> args;
};

// `undo` throws after the change, so that the transaction leaves nothing behind.
const Arg kUndo{"undo", 2, 4};
const Arg kSpec{"spec", 3, 60};
const Arg kNumber{"number", 9, 88};
const Arg kIdForm{"id_form", 4, 8};      // full, bare, unknown, no id at all
const Arg kToken{"token", 4, 12};        // that lease's, none, another's, forged
const Arg kLease{"lease", 8, 60};        // counted from the newest
const Arg kEnded{"ended", 2, 12};        // one that was completed or given back
const Arg kExpected{"expected", 3, 10};  // no condition, the last seen version, a false one
const Arg kRetryAt{"retry_at", 4, 35};
const Arg kUsage{"usage", 4, 40};

/// As Kind is numbered.
const std::vector<KindOfCommand>& kinds() {
  static const std::vector<KindOfCommand> kKinds = {
      {"submit",
       10,
       {kSpec,
        {"replace", 2, 10},
        {"max_running", 4, 12},
        {"budget_usd", 3, 10},
        {"budget_tokens", 3, 10},
        {"unblock_on", 3, 15},
        {"metadata", 3, 20},
        kUndo}},
      {"claim",
       24,
       {{"max", 4, 30},
        {"skills", 4, 35},
        {"provider", 3, 50},
        {"named", 2, 12},
        {"second", 2, 15},
        {"lease_time", 3, 30},
        kSpec,
        kNumber,
        kIdForm,
        kUndo}},
      {"complete",
       22,
       {kLease,
        kEnded,
        {"status", 4, 55},
        {"class", 8, 85},
        kRetryAt,
        kUsage,
        {"merged", 3, 30},
        {"commit", 2, 50},
        {"events", 3, 20},
        {"artifacts", 2, 15},
        {"next", 4, 25},
        {"skills", 4, 20},
        {"provider", 3, 30},
        kToken,
        kExpected,
        kSpec,
        kNumber,
        kIdForm,
        kUndo}},
      {"set_status",
       9,
       {kSpec,
        kNumber,
        kIdForm,
        {"status", 6, 85},
        {"leased", 2, 40},
        kLease,
        kEnded,
        kToken,
        {"metadata", 4, 40},
        kExpected,
        kUndo}},
      {"heartbeat",
       6,
       {kLease,
        kEnded,
        {"second", 2, 40},
        {"bare", 2, 20},
        kToken,
        {"elsewhere", 4, 10},
        kSpec,
        kNumber}},
      {"cancel", 4, {kSpec, kNumber, kIdForm, {"reason", 2, 50}, kExpected, kUndo}},
      {"retry", 8, {kSpec, kNumber, kIdForm, kExpected, kUndo}},
      {"patch",
       4,
       {kSpec,
        kNumber,
        kIdForm,
        {"priority", 4, 50},
        {"labels", 3, 40},
        {"metadata", 4, 40},
        kExpected,
        kUndo}},
      {"park", 3, {{"provider", 2, 50}, {"until", 5, 60}, kUndo}},
      {"unpark", 2, {{"provider", 2, 50}, kUndo}},
      {"give_back", 3, {kLease, kEnded, kToken, kUndo}},
      {"add_event",
       4,
       {kSpec,
        kNumber,
        kIdForm,
        {"leased", 2, 70},
        kLease,
        kEnded,
        kToken,
        {"type", 3, 60},
        {"time", 3, 30},
        kUndo}},
      {"add_artifact",
       3,
       {kSpec, kNumber, kIdForm, {"leased", 2, 70}, kLease, kEnded, kToken, kUndo}},
      {"answer", 2, {{"key", 3, 60}, {"what", 3, 60}, kUndo}},
      {"do_due", 12, {}},
      {"advance", 12, {{"time", 8, 90}}},
      {"step_system", 2, {{"back", 2, 50}}},
      {"reopen", 1, {}},
      {"purge", 2, {{"tasksets", 4, 50}, {"events", 4, 40}}},
      {"query_tasks",
       6,
       {{"sort", 4, 70},
        {"limit", 4, 70},
        kSpec,
        {"by_spec", 2, 30},
        {"state", 7, 30},
        {"skill", 3, 15},
        {"label", 3, 15},
        {"text", 3, 15},
        {"since", 3, 15},
        {"until", 3, 15},
        {"go_on", 2, 40}}},
      {"query_events",
       5,
       {{"limit", 4, 70},
        {"by_task", 2, 30},
        kSpec,
        kNumber,
        kIdForm,
        {"by_spec", 2, 30},
        {"type", 3, 30},
        {"since", 3, 20},
        {"until", 3, 20},
        {"after", 5, 40}}},
      {"query_task", 6, {kSpec, kNumber, kIdForm}},
  };
  return kKinds;
}

const std::vector<Arg> kTaskArgs = {
    {"number", 10, 15},  {"deps", 256, 55},       {"outside", 3, 6},     {"policy", 5, 45},
    {"skill", 3, 30},    {"provider", 3, 30},     {"touches", 5, 30},    {"repo", 2, 20},
    {"priority", 4, 40}, {"max_attempts", 4, 50}, {"not_before", 4, 15}, {"done", 2, 7},
    {"labels", 3, 20},   {"metadata", 4, 20},
};

int value_of(const std::vector<Arg>& names, const std::vector<int>& values, const char* name) {
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (std::strcmp(names[i].name, name) == 0) return i < values.size() ? values[i] : 0;
  }
  throw std::logic_error(std::string("no such argument: ") + name);
}

int random_below(std::mt19937_64& random, int limit) {
  return static_cast<int>(random() % static_cast<unsigned>(limit));
}

std::vector<int> random_args(std::mt19937_64& random, const std::vector<Arg>& names) {
  std::vector<int> values;
  for (const Arg& name : names) {
    const bool plain = random_below(random, 100) >= name.percent;
    values.push_back(plain ? 0 : 1 + random_below(random, name.values - 1));
  }
  return values;
}

std::string describe_args(const std::vector<Arg>& names, const std::vector<int>& values) {
  std::string text;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (values[i] != 0) text += std::string(" ") + names[i].name + "=" + std::to_string(values[i]);
  }
  return text;
}

const KindOfCommand& kind_of(const Command& command) {
  return kinds()[static_cast<std::size_t>(command.kind)];
}

using Fails = std::function<bool(const std::vector<Command>&)>;

/// Drops chunks of halving size for as long as one can go.
template <class Item>
bool drop_chunks(std::vector<Item>& items, const std::function<bool()>& fails) {
  bool shorter = false;
  for (std::size_t chunk = items.size(); chunk > 0; chunk /= 2) {
    for (std::size_t at = 0; at < items.size();) {
      const std::vector<Item> before = items;
      const auto first = items.begin() + static_cast<std::ptrdiff_t>(at);
      items.erase(first, first + static_cast<std::ptrdiff_t>(std::min(chunk, items.size() - at)));
      if (fails()) {
        shorter = true;
      } else {
        items = before;
        at += chunk;
      }
    }
  }
  return shorter;
}

bool clear_args(std::vector<int>& args, const std::function<bool()>& fails) {
  bool simpler = false;
  for (int& value : args) {
    for (const int plainer : {0, 1}) {
      if (value <= plainer) break;
      const int before = std::exchange(value, plainer);
      if (fails()) {
        simpler = true;
      } else {
        value = before;
      }
    }
  }
  return simpler;
}

}  // namespace

int arg(const Command& command, const char* name) {
  return value_of(kind_of(command).args, command.args, name);
}

int task_arg(const std::vector<int>& task, const char* name) {
  return value_of(kTaskArgs, task, name);
}

std::vector<Command> random_commands(std::mt19937_64& random, int count) {
  int whole = 0;
  for (const KindOfCommand& kind : kinds()) whole += kind.weight;
  std::vector<Command> commands;
  for (int i = 0; i < count; ++i) {
    Command& command = commands.emplace_back();
    int place = random_below(random, whole);
    std::size_t kind = 0;
    while (place >= kinds()[kind].weight) place -= kinds()[kind++].weight;
    command.kind = static_cast<Kind>(kind);
    command.args = random_args(random, kinds()[kind].args);
    if (command.kind != Kind::kSubmit) continue;
    const int tasks = random_below(random, 9);
    for (int t = 0; t < tasks; ++t) command.tasks.push_back(random_args(random, kTaskArgs));
  }
  return commands;
}

std::string describe(const std::vector<Command>& commands) {
  std::string text;
  for (const Command& command : commands) {
    text += "  " + std::string(kind_of(command).name);
    text += describe_args(kind_of(command).args, command.args) + "\n";
    for (const std::vector<int>& task : command.tasks) {
      text += "    task" + describe_args(kTaskArgs, task) + "\n";
    }
  }
  return text;
}

std::vector<Command> shrink(std::vector<Command> commands, const Fails& fails) {
  const std::function<bool()> still_fails = [&] { return fails(commands); };
  for (bool helped = true; helped;) {
    helped = drop_chunks(commands, still_fails);
    for (std::size_t i = 0; i < commands.size(); ++i) {
      helped = drop_chunks(commands[i].tasks, still_fails) || helped;
      helped = clear_args(commands[i].args, still_fails) || helped;
      for (std::vector<int>& task : commands[i].tasks) {
        helped = clear_args(task, still_fails) || helped;
      }
    }
  }
  return commands;
}

}  // namespace necrocode::registry
