#include "necrocode/llm/replay.hpp"

#include <algorithm>
#include <deque>
#include <mutex>
#include <optional>
#include <set>

#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/llm/replay_delivery.hpp"
#include "necrocode/llm/replay_dialects.hpp"
#include "necrocode/observe/log.hpp"

namespace necrocode::llm {
namespace {

constexpr std::size_t kQuotedBytes = 100;  // of a condition in a message
// What a drill breaks when nothing else is there; long enough to have a middle.
constexpr std::string_view kDrilledText =
    "This answer belongs to a drill. It says nothing, but takes its time to say it.";

// How well a question meets the conditions of an entry; the unmet ones in words.
struct Fit {
  std::size_t met = 0;
  std::vector<std::string> unmet;
};

std::string in_quotes(std::string_view text) {
  return "\"" + printable(shorten(text, kQuotedBytes)) + "\"";
}

Fit compare(const CassetteMatch& match, const Question& question) {
  Fit fit;
  const auto note = [&](bool holds, const std::string& unmet) {
    if (holds) {
      ++fit.met;
    } else {
      fit.unmet.push_back(unmet);
    }
  };
  if (!match.model.empty()) {
    note(match.model == question.model, "the model is not " + in_quotes(match.model));
  }
  for (const std::string& part : match.contains) {
    note(question.text.find(part) != std::string::npos, "the messages lack " + in_quotes(part));
  }
  for (const std::string& part : match.not_contains) {
    note(question.text.find(part) == std::string::npos, "the messages contain " + in_quotes(part));
  }
  return fit;
}

bool matches(const CassetteMatch& match, const Question& question) {
  const auto has = [&](const std::string& part) {
    return question.text.find(part) != std::string::npos;
  };
  return (match.model.empty() || match.model == question.model) &&
         std::all_of(match.contains.begin(), match.contains.end(), has) &&
         std::none_of(match.not_contains.begin(), match.not_contains.end(), has);
}

}  // namespace

struct ReplayServer::State {
  State(Cassette given, net::HttpServerOptions options)
      : cassette(std::move(given)),
        used(cassette.entries.size(), 0),
        rules(cassette.drills.size()),
        server(std::move(options)) {}

  struct RuleCount {
    std::int64_t matched = 0, applied = 0;
  };
  struct Chosen {
    const CassetteEntry* entry = nullptr;
    const DrillRule* rule = nullptr;  // takes the entry's place
  };

  const Cassette cassette;
  mutable std::mutex mutex;
  std::vector<std::int64_t> used;    // answers given, an entry; guarded by mutex
  std::vector<RuleCount> rules;      // of cassette.drills; guarded by mutex
  std::deque<ReplayRecord> records;  // guarded by mutex
  net::HttpServer server;            // last: its threads use the above

  net::Response answer(ModelApi api, const net::Request& request);
  Chosen choose(const Question& question);
  const DrillRule* due_rule(const Question& question);
  std::string nearest(const Question& question) const;
  net::Response models() const;
};

// The first rule that matches and is due; each that matches counts the question. With the mutex.
const DrillRule* ReplayServer::State::due_rule(const Question& question) {
  const DrillRule* due = nullptr;
  for (std::size_t i = 0; i < cassette.drills.size(); ++i) {
    const DrillRule& rule = cassette.drills[i];
    if (!matches(rule.match, question)) continue;
    const bool exhausted = rule.times != 0 && rules[i].applied >= rule.times;
    if (!rule.is_due(++rules[i].matched) || exhausted || due != nullptr) continue;
    ++rules[i].applied;
    due = &rule;
  }
  return due;
}

// Takes one answer of the first entry that matches and is not used up, unless a drill takes its
// place.
ReplayServer::State::Chosen ReplayServer::State::choose(const Question& question) {
  const std::lock_guard lock(mutex);
  for (std::size_t i = 0; i < cassette.entries.size(); ++i) {
    const CassetteEntry& entry = cassette.entries[i];
    if ((entry.times != 0 && used[i] >= entry.times) || !matches(entry.match, question)) continue;
    ReplayRecord record{i, question.model};
    const DrillRule* rule = due_rule(question);
    if (rule != nullptr) {
      record.drill = to_string(rule->drill.drill);
    } else {
      record.time = ++used[i];
    }
    records.push_back(std::move(record));
    if (records.size() > limits::kReplayRecords) records.pop_front();
    return {&entry, rule};
  }
  return {};
}

// The entry that fails the fewest conditions, and of those the one that meets the most.
std::string ReplayServer::State::nearest(const Question& question) const {
  std::optional<std::size_t> best;
  Fit best_fit;
  for (std::size_t i = 0; i < cassette.entries.size(); ++i) {
    Fit candidate = compare(cassette.entries[i].match, question);
    const bool nearer =
        !best || candidate.unmet.size() < best_fit.unmet.size() ||
        (candidate.unmet.size() == best_fit.unmet.size() && candidate.met > best_fit.met);
    if (!nearer) continue;
    best = i;
    best_fit = std::move(candidate);
  }
  if (!best) return "the cassette is empty";
  const std::string name = "the nearest is entry " + std::to_string(*best) + ": ";
  if (!best_fit.unmet.empty()) return name + join(best_fit.unmet, ", ");
  return name + "it matches, but has given its " + std::to_string(cassette.entries[*best].times) +
         " answer(s)";
}

net::Response ReplayServer::State::answer(ModelApi api, const net::Request& request) {
  std::string defect;
  const auto body = Json::try_parse(request.body);
  Question question = read_question(api, body.value_or(Json()), defect);
  if (!defect.empty()) return refuse(api, {400, defect, "replay_bad_request"});
  const auto deployment = request.params.find("deployment");  // Azure's name of a model
  if (deployment != request.params.end()) question.model = deployment->second;
  const Chosen chosen = choose(question);
  if (chosen.entry == nullptr) {
    log::warn("replay: no entry matches",
              {{"model", question.model}, {"request_id", request.request_id}});
    const std::string message = "no cassette entry answers this; " + nearest(question);
    return refuse(api, {400, message, "replay_no_match"});
  }
  log::debug("replay: answered",
             {{"entry", chosen.entry - cassette.entries.data()}, {"model", question.model}});
  const auto& answer = chosen.entry->answer;
  const auto* completion = std::get_if<CompletionAnswer>(&answer);
  const auto* drill =
      chosen.rule != nullptr ? &chosen.rule->drill : std::get_if<DrillAnswer>(&answer);
  if (drill == nullptr) {
    return completion != nullptr ? deliver(api, *completion, question)
                                 : deliver(std::get<RawAnswer>(answer));
  }
  CompletionAnswer broken;
  broken.content = kDrilledText;
  if (drill->answer) broken = *drill->answer;
  return deliver(api, *drill, completion != nullptr ? *completion : broken, question);
}

// The models that the cassette names, or one that stands for any.
net::Response ReplayServer::State::models() const {
  std::set<std::string> names;
  for (const CassetteEntry& entry : cassette.entries) {
    if (!entry.match.model.empty()) names.insert(entry.match.model);
  }
  if (names.empty()) names.insert("replay");
  Json list = Json::array();
  for (const std::string& name : names) {
    list.push_back(Json::object(
        {{"id", name}, {"object", "model"}, {"created", 0}, {"owned_by", "necrocode"}}));
  }
  return net::Response::json(200, Json::object({{"object", "list"}, {"data", std::move(list)}}));
}

ReplayServer::ReplayServer(Cassette cassette, net::HttpServerOptions server)
    : state_(std::make_unique<State>(std::move(cassette), std::move(server))) {
  State& state = *state_;
  net::RouteOptions options;
  options.body_bytes_max = limits::kCassetteBytes;  // a prompt may be long
  for (const ModelRoute& route : model_routes()) {
    const auto answer = [&state, api = route.api](const net::Request& request) {
      net::Response response = state.answer(api, request);
      if (api == ModelApi::kMessages && !response.headers.get("request-id")) {
        response.headers.set("request-id", request.request_id);
      }
      return response;
    };
    state.server.route("POST", std::string(route.pattern), answer, options);
  }
  for (const char* path : {"/v1/models", "/models", "/openai/v1/models", "/openai/models"}) {
    state.server.route("GET", path, [&state](const net::Request&) { return state.models(); });
  }
  net::RouteOptions health;
  health.priority = true;
  state.server.route(
      "GET", "/health",
      [](const net::Request&) {
        const Json components = Json::object({{"replay", "ok"}});
        return net::Response::json(200,
                                   Json::object({{"status", "ok"}, {"components", components}}));
      },
      health);
}

ReplayServer::~ReplayServer() {
  stop();
}
void ReplayServer::start() {
  state_->server.start();
}
void ReplayServer::stop() {
  state_->server.stop();
}
std::string ReplayServer::url() const {
  return state_->server.url() + "/v1";
}

std::vector<ReplayRecord> ReplayServer::served() const {
  const std::lock_guard lock(state_->mutex);
  return {state_->records.begin(), state_->records.end()};
}

}  // namespace necrocode::llm
