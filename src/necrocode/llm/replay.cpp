#include "necrocode/llm/replay.hpp"

#include <algorithm>
#include <deque>
#include <mutex>
#include <optional>
#include <set>

#include "necrocode/base/clock.hpp"
#include "necrocode/base/ids.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/observe/log.hpp"

namespace necrocode::llm {
namespace {

// What a match looks at.
struct Question {
  std::string model;
  std::string text;  // the contents of all messages, joined by newlines
};

constexpr std::size_t kBytesPerToken = 4;  // of an estimated usage
constexpr std::size_t kQuotedBytes = 100;  // of a condition in a message

net::Response error_response(int status, const std::string& message, std::string_view type,
                             std::string_view code) {
  const Json error =
      Json::object({{"message", message}, {"type", type}, {"param", nullptr}, {"code", code}});
  return net::Response::json(status, Json::object({{"error", error}}));
}

net::Response bad_request(const std::string& message) {
  return error_response(400, message, "invalid_request_error", "replay_bad_request");
}

// A string, or the text parts of an array.
std::string content_text(const Json& content) {
  std::string text = content.string_or("");
  for (const Json& part : content.items()) text += part["text"].string_or("");
  return text;
}

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

Json estimated_usage(const Question& question, const std::string& content) {
  const std::size_t prompt = (question.text.size() + kBytesPerToken - 1) / kBytesPerToken;
  const std::size_t completion = (content.size() + kBytesPerToken - 1) / kBytesPerToken;
  return Json::object({{"prompt_tokens", prompt},
                       {"completion_tokens", completion},
                       {"total_tokens", prompt + completion}});
}

// The object "chat.completion" of OpenAI's API reference.
Json completion(const CompletionAnswer& answer, const Question& question) {
  Json usage = answer.usage ? *answer.usage : estimated_usage(question, answer.content);
  if (usage.is_object() && !usage.find("total_tokens")) {
    usage.set("total_tokens", usage["prompt_tokens"].as_int().value_or(0) +
                                  usage["completion_tokens"].as_int().value_or(0));
  }
  const Json message =
      Json::object({{"role", "assistant"}, {"content", answer.content}, {"refusal", nullptr}});
  const Json choice = Json::object({{"index", 0},
                                    {"message", message},
                                    {"logprobs", nullptr},
                                    {"finish_reason", answer.finish_reason}});
  return Json::object({{"id", "chatcmpl-" + random_hex(12)},
                       {"object", "chat.completion"},
                       {"created", to_unix_ms(real_clock().system_now()) / 1000},
                       {"model", answer.model.empty() ? question.model : answer.model},
                       {"choices", Json(Json::Array{choice})},
                       {"usage", usage}});
}

// The connection breaks after `sent`: the server cuts it when a producer throws.
net::Response cut_after(std::string sent) {
  net::Response response;
  response.headers.set("Content-Type", "application/json");
  response.body = net::BodyProducer([sent = std::move(sent)]() mutable {
    if (sent.empty()) throw RunnerError("replay drill: cut");
    return std::exchange(sent, {});
  });
  return response;
}

net::Response stall(double seconds) {
  net::ParkRequest park;
  park.timeout = std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000));
  park.start = [](std::shared_ptr<net::Parked>) {};
  park.on_timeout = [] {
    return error_response(504, "replay drill: the stall is over", "server_error", "replay_stall");
  };
  park.on_gone = [] {};
  return net::Response::park(std::move(park));
}

net::Response drill_response(const DrillAnswer& answer) {
  switch (answer.drill) {
    case Drill::kStall:
      return stall(answer.seconds);
    case Drill::kReset:
      return cut_after({});
    case Drill::kCut:
      return cut_after(R"({"id":"chatcmpl-cut","object":"chat.completion","choices":[{"in)");
    case Drill::kGarbage:
      return net::Response::text(200, std::string("\x1f\x8b\x08\x00\xff\xfe{]garbage", 15),
                                 "application/json");
    case Drill::kHtml:
      return net::Response::text(200, "<!doctype html>\n<title>Please log in</title>\n",
                                 "text/html");
  }
  return net::Response::empty(500);
}

net::Response raw_response(const RawAnswer& answer) {
  net::Response response;
  response.status = answer.status;
  response.headers = answer.headers;
  response.body = answer.body;
  return response;
}

}  // namespace

struct ReplayServer::State {
  State(Cassette given, net::HttpServerOptions options)
      : cassette(std::move(given)), used(cassette.entries.size(), 0), server(std::move(options)) {}

  const Cassette cassette;
  mutable std::mutex mutex;
  std::vector<std::int64_t> used;    // answers given, an entry; guarded by mutex
  std::deque<ReplayRecord> records;  // guarded by mutex
  net::HttpServer server;            // last: its threads use the above

  net::Response answer(const net::Request& request);
  std::optional<std::size_t> choose(const Question& question);
  std::string nearest(const Question& question) const;
  net::Response models() const;
};

// Takes one answer of the first entry that matches and is not used up.
std::optional<std::size_t> ReplayServer::State::choose(const Question& question) {
  const std::lock_guard lock(mutex);
  for (std::size_t i = 0; i < cassette.entries.size(); ++i) {
    const CassetteEntry& entry = cassette.entries[i];
    if ((entry.times != 0 && used[i] >= entry.times) || !matches(entry.match, question)) continue;
    records.push_back({i, question.model, ++used[i]});
    if (records.size() > limits::kReplayRecords) records.pop_front();
    return i;
  }
  return std::nullopt;
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

net::Response ReplayServer::State::answer(const net::Request& request) {
  const auto body = Json::try_parse(request.body);
  if (!body || !body->is_object()) return bad_request("the body is not a JSON object");
  if ((*body)["stream"].as_bool().value_or(false)) {
    return bad_request("this replay server does not stream; send \"stream\": false");
  }
  if ((*body)["messages"].size() == 0 || !(*body)["messages"].is_array()) {
    return bad_request("messages must be an array with at least one message");
  }
  Question question;
  question.model = (*body)["model"].string_or("");
  for (const Json& message : (*body)["messages"].items()) {
    if (!question.text.empty()) question.text += '\n';
    question.text += content_text(message["content"]);
  }
  const auto chosen = choose(question);
  if (!chosen) {
    log::warn("replay: no entry matches",
              {{"model", question.model}, {"request_id", request.request_id}});
    return error_response(400, "no cassette entry answers this; " + nearest(question),
                          "invalid_request_error", "replay_no_match");
  }
  log::debug("replay: answered", {{"entry", *chosen}, {"model", question.model}});
  const auto& answer = cassette.entries[*chosen].answer;
  if (const auto* raw = std::get_if<RawAnswer>(&answer)) return raw_response(*raw);
  if (const auto* drill = std::get_if<DrillAnswer>(&answer)) return drill_response(*drill);
  return net::Response::json(200, completion(std::get<CompletionAnswer>(answer), question));
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

ReplayServer::ReplayServer(Cassette cassette, net::HttpServerOptions options)
    : state_(std::make_unique<State>(std::move(cassette), std::move(options))) {
  State& state = *state_;
  net::RouteOptions chat;
  chat.body_bytes_max = limits::kCassetteBytes;  // a prompt may be long
  state.server.route(
      "POST", "/v1/chat/completions",
      [&state](const net::Request& request) { return state.answer(request); }, chat);
  state.server.route("GET", "/v1/models", [&state](const net::Request&) { return state.models(); });
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
