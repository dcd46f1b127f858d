#include "conformance/random_run.hpp"

namespace necrocode::registry {
namespace {

using namespace std::chrono_literals;

/// Where the two differ first, in a few words; empty when they are the same.
std::string difference(const Json& model, const Json& store, const std::string& place) {
  if (model == store) return {};
  if (model.is_object() && store.is_object()) {
    for (const auto& [name, value] : model.members()) {
      const std::string inner = difference(value, store[name], place + "/" + name);
      if (!inner.empty()) return inner;
    }
    for (const auto& [name, value] : store.members()) {
      if (!model.find(name)) return place + "/" + name + ": only the store has " + value.dump();
    }
    return {};  // the same members in another order
  }
  if (model.is_array() && store.is_array() && model.size() == store.size()) {
    for (std::size_t i = 0; i < model.size(); ++i) {
      const std::string inner =
          difference(model.items()[i], store.items()[i], place + "/" + std::to_string(i));
      if (!inner.empty()) return inner;
    }
    return {};
  }
  return place + "\n    model: " + model.dump() + "\n    store: " + store.dump();
}

}  // namespace

const StoreOptions& RandomRun::options() {
  static const StoreOptions kOptions{{{"rust", 2}}};
  return kOptions;
}

RandomRun::RandomRun(const StoreFactory& factory, int check_every,
                     const StoreOptions& model_options)
    : factory_(factory),
      check_every_(check_every),
      folder_("necrocode-", std::filesystem::exists("/dev/shm") ? "/dev/shm" : ""),
      model_(clock_, model_options),
      model_side_(model_, clock_) {
  open();
}

void RandomRun::open() {
  store_.reset();
  store_ = factory_.make(folder_.path(), clock_, options());
  store_->on_commit([this](const CommitNews& news) {
    if (news.became_claimable) news_.claimable = true;
    if (news.due_sooner) news_.due_sooner = true;
  });
  promised_.reset();
  in_vain_.clear();
  if (side_) {
    side_->reopened(*store_);
  } else {
    side_.emplace(*store_, clock_);
  }
}

std::optional<Difference> RandomRun::run(const std::vector<Command>& commands) {
  for (std::size_t i = 0; i < commands.size(); ++i) {
    std::string what = perform(commands[i]);
    if (what.empty()) what = check_news();
    const bool claimed = commands[i].kind == Kind::kClaim && !arg(commands[i], "undo");
    if (claimed) note_vain_claims(commands[i]);
    const bool last = i + 1 == commands.size();
    if (what.empty() && (last || i % static_cast<std::size_t>(check_every_) == 0)) {
      what = difference(model_side_.everything(), side_->everything(), "state");
    }
    if (!what.empty()) return Difference{i, what};
  }
  return std::nullopt;
}

std::string RandomRun::perform(const Command& command) {
  constexpr std::array<std::chrono::milliseconds, 8> kTimes = {1s,  100ms, 5s,   5s,
                                                               30s, 61s,   300s, 7300s};
  switch (command.kind) {
    case Kind::kAdvance:
      clock_.advance(kTimes[static_cast<std::size_t>(arg(command, "time"))]);
      return {};
    case Kind::kStepSystem:
      clock_.step_system(arg(command, "back") ? -2h : 2h);
      return {};
    case Kind::kReopen:
      if (!factory_.persistent) return {};
      open();
      model_.restart();
      return {};
    case Kind::kDoDue:
      return do_due();
    default:
      answer_ = model_side_.perform(command);
      return difference(answer_, side_->perform(command), "answer");
  }
}

std::string RandomRun::do_due() {
  model_.do_due();
  const auto until_next = store_->do_due();
  const auto due = model_.next_due();
  if (until_next && *until_next <= 0ns) return "do_due() has something to do again at once";
  promised_.emplace();
  if (until_next) *promised_ = clock_.steady_now() + *until_next;
  if (due && (!*promised_ || **promised_ > *due)) return "do_due() promises too long a rest";
  return {};
}

void RandomRun::note_vain_claims(const Command& command) {
  const std::vector<ClaimRequest> requests = model_side_.requests_of(command);
  for (std::size_t i = 0; i < answer_.items().size(); ++i) {
    if (answer_.items()[i] == Json::array()) in_vain_.push_back(requests[i]);
  }
}

std::string RandomRun::check_news() {
  if (news_.claimable.exchange(false)) in_vain_.clear();
  for (const ClaimRequest& request : in_vain_) {
    if (model_side_.would_get(request)) return "no news for who waits: " + request.to_json().dump();
  }
  if (news_.due_sooner.exchange(false)) promised_.reset();
  const auto due = model_.next_due();
  if (promised_ && due && (!*promised_ || **promised_ > *due)) {
    return "no news that do_due() has to be called sooner";
  }
  return {};
}

}  // namespace necrocode::registry
