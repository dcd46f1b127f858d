#include "necrocode/llm/recorder.hpp"

#include <algorithm>
#include <mutex>
#include <optional>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/llm/cassette_file.hpp"
#include "necrocode/llm/masked_text.hpp"
#include "necrocode/llm/passage.hpp"
#include "necrocode/llm/recorded_answer.hpp"
#include "necrocode/llm/replay_delivery.hpp"
#include "necrocode/observe/log.hpp"

namespace necrocode::llm {
namespace {

// Each holds a thread, and at most one answer of limits::kModelAnswerBytes: 256 MiB together.
constexpr std::size_t kExchanges = 16;
constexpr std::size_t kExchangesWaiting = 64;
constexpr std::size_t kConditionBytes = 200;  // of one condition of a match

// ---- masking ----

void mask(CompletionAnswer& answer, const Masker& masker) {
  for (std::string* text :
       {&answer.content, &answer.reasoning, &answer.finish_reason, &answer.model}) {
    *text = masker.mask(*text);
  }
  for (ToolCall& call : answer.tool_calls) {
    for (std::string* text : {&call.id, &call.name, &call.arguments}) *text = masker.mask(*text);
  }
  if (answer.usage) answer.usage = masked(*answer.usage, masker);
}

void mask(RawAnswer& answer, const Masker& masker) {
  net::Headers headers;
  for (const auto& [name, value] : answer.headers) {
    headers.add(masker.mask(name), masker.mask(value));
  }
  answer.headers = std::move(headers);
  answer.body = masked_body(answer.body, masker);
}

void mask(DrillAnswer& answer, const Masker& masker) {
  if (answer.answer) mask(*answer.answer, masker);
}

}  // namespace

CassetteEntry masked(CassetteEntry entry, const Masker& masker) {
  entry.match.model = masker.mask(entry.match.model);
  for (auto* conditions : {&entry.match.contains, &entry.match.not_contains}) {
    for (std::string& text : *conditions) text = masker.mask(text);
  }
  std::visit([&](auto& answer) { mask(answer, masker); }, entry.answer);
  return entry;
}

CassetteMatch recorded_match(const Question& question, const Masker& masker) {
  CassetteMatch match;
  if (!masker.contains_secret(question.model)) match.model = question.model;
  const std::string safe = masker.mask(question.last);
  const bool usable = safe == question.last && safe.find('\0') == std::string::npos;
  if (safe.empty()) return match;
  if (usable && safe.size() <= kConditionBytes) {
    match.contains = {safe};
    return match;
  }
  std::vector<std::string> lines;
  for (const std::string_view line : split(safe, '\n')) {
    std::string_view text = trim(line);
    // Within what masking left as it was; a mask is no part of the question.
    if (text.empty() || text.find("***") != std::string_view::npos ||
        text.find('\0') != std::string_view::npos) {
      continue;
    }
    while (text.size() > kConditionBytes || !is_utf8(text)) {
      text = text.substr(0, std::min(text.size() - 1, kConditionBytes));
    }
    lines.emplace_back(text);
  }
  if (lines.empty()) return match;
  const auto longest = std::max_element(
      lines.begin(), lines.end(), [](const auto& a, const auto& b) { return a.size() < b.size(); });
  for (const std::string& line : {lines.front(), *longest, lines.back()}) {
    auto& taken = match.contains;
    if (std::find(taken.begin(), taken.end(), line) == taken.end()) taken.push_back(line);
  }
  return match;
}

// ---- one exchange ----

namespace {

// What the service has answered so far, as far as it is kept.
struct Observed {
  net::HttpResponse answer;
  bool begun = false;                          // a 2xx, which goes on as it comes
  bool too_large = false;                      // to be recorded
  std::optional<net::TransportError> failure;  // why no whole answer came
};

}  // namespace

struct Recorder::State {
  explicit State(RecorderOptions given)
      : options(std::move(given)),
        upstream(make_upstream(options.endpoint, options.api_key, "llm.endpoint")),
        file(options.out),
        server(options.server),
        passages("the recorder", kExchanges, kExchangesWaiting) {}

  const RecorderOptions options;
  const Upstream upstream;
  std::mutex mutex;
  CassetteFile file;        // guarded by mutex
  Recorder::Counts counts;  // guarded by mutex
  net::HttpServer server;
  Passages passages;  // last: its threads use the above

  net::Response take(ModelApi api, const net::Request& request);
  void run(Passage& passage, const net::HttpRequest& request);
  void record(const Passage& passage, const net::HttpRequest& request, const Observed& seen);
  std::string append(const CassetteEntry& entry);
};

net::Response Recorder::State::take(ModelApi api, const net::Request& request) {
  if (request.headers.get("Origin")) {
    return refuse(api, {403, "the recorder answers programs, not web pages", "replay_origin"});
  }
  net::HttpRequest sent = upstream_request(api, request, request.target, upstream);
  return passages.begin(std::make_shared<Passage>(api),
                        [this, sent = std::move(sent)](Passage& passage) { run(passage, sent); });
}

void Recorder::State::run(Passage& passage, const net::HttpRequest& request) {
  Observed seen;
  std::string body;
  Passed passed = passage.send(*options.http, request, [&](std::string_view piece) {
    seen.too_large = seen.too_large || body.size() + piece.size() > limits::kModelAnswerBytes;
    if (!seen.too_large) body.append(piece);
    return piece;
  });
  seen.begun = passed.begun;
  seen.failure = passed.failure;
  if (request.method == "POST") {
    seen.answer = passed.answer;
    if (seen.begun) seen.answer.body = std::move(body);
    record(passage, request, seen);
  }
  passage.end(std::move(passed), [&] {
    const std::string why = options.masker->mask(seen.failure->summary());
    return refuse(passage.api, {502, "the model service could not be asked: " + why});
  });
}

namespace {

// What the client has seen, which is what it shall see again; or the reason why that is nothing.
std::variant<RecordedAnswer, std::string> what_to_record(const Passage& passage,
                                                         const Observed& seen) {
  if (seen.too_large) {
    return "it is larger than " + std::to_string(limits::kModelAnswerBytes) + " bytes";
  }
  if (seen.failure && !seen.begun) return "none came";
  if (seen.failure && !passage.abandoned()) {
    DrillAnswer cut;
    cut.drill = Drill::kCut;
    return cut;
  }
  RecordedAnswer answer = read_answer(passage.api, seen.answer);
  // Many close the connection at [DONE], before the stream itself has ended.
  if (seen.failure && !std::holds_alternative<CompletionAnswer>(answer)) {
    return "the client did not wait for it";
  }
  return answer;
}

}  // namespace

void Recorder::State::record(const Passage& passage, const net::HttpRequest& request,
                             const Observed& seen) {
  std::string defect;  // of no account here: the service judges
  const Question question =
      read_question(passage.api, Json::try_parse(request.body).value_or(Json()), defect);
  auto found = what_to_record(passage, seen);
  std::string reason;
  if (auto* answer = std::get_if<RecordedAnswer>(&found)) {
    CassetteEntry entry;
    entry.match = recorded_match(question, *options.masker);
    entry.answer = std::move(*answer);
    // The request's model, which an answer has when it names none, is not told twice.
    auto* whole = std::get_if<CompletionAnswer>(&entry.answer);
    if (whole != nullptr && whole->model == question.model) whole->model.clear();
    const auto* raw = std::get_if<RawAnswer>(&entry.answer);
    reason = raw != nullptr && holds_secret_in_pieces(raw->body, *options.masker)
                 ? "a secret is spread over it"
                 : append(masked(std::move(entry), *options.masker));
  } else {
    reason = std::get<std::string>(found);
  }
  if (!reason.empty()) log::warn("an answer is not in the cassette", {{"reason", reason}});
  const std::lock_guard lock(mutex);
  ++(reason.empty() ? counts.recorded : counts.left_out);
}

// Why it was not; empty when it was.
std::string Recorder::State::append(const CassetteEntry& entry) {
  // A last look over the whole: better no entry than one with a secret.
  if (options.masker->contains_secret(to_json(entry).dump())) return "a secret is spread over it";
  try {
    const std::lock_guard lock(mutex);
    return file.append(entry) ? "" : "the cassette has no room or no words for it";
  } catch (const StorageError& error) {
    return error.what();
  }
}

Recorder::Recorder(RecorderOptions options) : state_(std::make_unique<State>(std::move(options))) {
  State& state = *state_;
  net::RouteOptions route_options;
  route_options.body_bytes_max = limits::kCassetteBytes;  // a prompt may be long
  const auto passes_on = [&state](ModelApi api) {
    return [&state, api](const net::Request& request) { return state.take(api, request); };
  };
  for (const ModelRoute& route : model_routes()) {
    state.server.route("POST", std::string(route.pattern), passes_on(route.api), route_options);
  }
  for (const char* path : {"/v1/models", "/v1/models/{model}"}) {
    state.server.route("GET", path, passes_on(ModelApi::kChat));
  }
}

Recorder::~Recorder() {
  stop();
}
void Recorder::start() {
  state_->server.start();
}
void Recorder::stop() {
  state_->server.stop();
  state_->passages.stop();
}
std::string Recorder::url() const {
  return state_->server.url() + "/v1";
}
Recorder::Counts Recorder::counts() const {
  const std::lock_guard lock(state_->mutex);
  return state_->counts;
}

}  // namespace necrocode::llm
