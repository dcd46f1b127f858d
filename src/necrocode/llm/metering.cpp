#include "necrocode/llm/metering.hpp"

#include <algorithm>
#include <array>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/llm/answer_stream.hpp"
#include "necrocode/llm/dialect.hpp"
#include "necrocode/llm/json_view.hpp"
#include "necrocode/net/event_stream.hpp"

namespace necrocode::llm {
namespace {

constexpr std::size_t kNameBytes = 1024;                     // of a model
constexpr std::int64_t kChoicesMax = 1'000;                  // no service gives more than 128
constexpr std::size_t kUsageChunkBytes = 16 * limits::kKiB;  // more than any usage is

const Dialect& dialect_of(ModelApi api) {
  switch (api) {
    case ModelApi::kResponses:
      return openai_responses();
    case ModelApi::kMessages:
      return anthropic();
    case ModelApi::kChat:
      break;
  }
  return openai_chat();
}

ExchangeClass class_of(int status, const ErrorWords& words) {
  switch (classify(status, words)) {
    case Refusal::kQuota:
      return ExchangeClass::kQuota;
    case Refusal::kContextLength:
      return ExchangeClass::kContext;
    case Refusal::kContentFilter:
    case Refusal::kOther:
      break;
  }
  if (status == 401 || status == 403) return ExchangeClass::kAuth;
  if (status == 429) return ExchangeClass::kRate;
  if (status >= 500 || status == 408 || status == 425) return ExchangeClass::kUnavailable;
  return status < 400 ? ExchangeClass::kProtocol : ExchangeClass::kRequest;
}

}  // namespace

std::string_view to_string(ExchangeClass how) {
  constexpr std::array<std::string_view, 10> kNames = {
      "ok",      "auth",    "quota",    "cap",         "rate",
      "context", "request", "protocol", "unavailable", "gone"};
  return kNames[static_cast<std::size_t>(how)];
}

Verdict judge(int status, std::string_view body) {
  const ErrorWords words = read_error(body);
  const bool speaks = !words.message.empty();
  return {class_of(status, words), "HTTP " + std::to_string(status) + ": " +
                                       (speaks ? words.message : std::string(trim(body)))};
}

Verdict judge(const net::TransportError& failure) {
  const bool malformed = failure.failure() == net::TransportFailure::kMalformed ||
                         failure.failure() == net::TransportFailure::kTooLarge;
  return {malformed ? ExchangeClass::kProtocol : ExchangeClass::kUnavailable, failure.summary()};
}

// ---- requests ----

namespace {

// What stands at an address of its own, or is kept by the service.
bool names_outside(std::string_view name, JsonView value) {
  const std::string_view text = value.text();
  if (name == "previous_response_id" || name == "file_id" || name == "file_url") {
    return !text.empty();
  }
  if (name == "conversation") return value.is_object() || !text.empty();
  if (name == "type") return text == "item_reference";
  return (name == "url" || name == "image_url") && text.starts_with("http");
}

void read_depths(JsonView value, MeteredRequest& request) {
  value.each([&](JsonView item) { read_depths(item, request); });
  value.each_member([&](std::string_view name, JsonView member) {
    request.refers_outside = request.refers_outside || names_outside(name, member);
    request.caches_for_an_hour =
        request.caches_for_an_hour || (name == "ttl" && member.text() == "1h");
    read_depths(member, request);
  });
}

bool is_token_limit(ModelApi api, std::string_view name) {
  if (api == ModelApi::kResponses) return name == "max_output_tokens";
  return name == "max_tokens" || (api == ModelApi::kChat && name == "max_completion_tokens");
}

// Members that change the price, but for these values of theirs.
struct PricedMember {
  std::string_view name;
  std::array<std::string_view, 5> usual;
};
constexpr std::array kPricedMembers = {
    PricedMember{"service_tier", {"auto", "default", "flex", "standard", "standard_only"}},
    PricedMember{"speed", {"standard"}}, PricedMember{"inference_geo", {"global"}}};

std::string unpriced_words(ModelApi api, std::string_view name, JsonView value) {
  if (!value.given()) return {};
  if (name == "background" && api == ModelApi::kResponses && value.dump() != "false") {
    return "an answer in the background is counted by nobody: ask without \"background\"";
  }
  for (const PricedMember& member : kPricedMembers) {
    const auto& usual = member.usual;
    if (name == member.name && (value.text().empty() || std::find(usual.begin(), usual.end(),
                                                                  value.text()) == usual.end())) {
      return "its \"" + std::string(name) + "\" changes the price: ask without it";
    }
  }
  return {};
}

}  // namespace

MeteredRequest read_metered_request(ModelApi api, std::string_view body,
                                    std::string_view deployment) {
  MeteredRequest request;
  request.asks_usage = api != ModelApi::kChat;
  JsonReaderLease reader;
  const auto json = reader->read(body);
  if (!json || !json->is_object()) {
    request.defect = "the request is no JSON object";
    return request;
  }
  std::vector<std::string_view> seen;
  const auto once = [&](std::string_view name) {
    if (std::find(seen.begin(), seen.end(), name) != seen.end()) {
      request.defect = "\"" + std::string(name) + "\" stands twice in the request";
    }
    seen.push_back(name);
  };
  json->each_member([&](std::string_view name, JsonView value) {
    if (request.unpriced.empty()) request.unpriced = unpriced_words(api, name, value);
    if (name == "model") {
      once("model");
      request.model = value.text().substr(0, kNameBytes);
    } else if (is_token_limit(api, name)) {
      if (value.given()) {
        const auto limit = value.count(kTokensMax);
        request.token_limit = std::max(request.token_limit.value_or(0), limit.value_or(kTokensMax));
      }
    } else if (name == "n" && api == ModelApi::kChat) {
      if (value.given()) {
        request.choices = std::max(request.choices, value.count(kChoicesMax).value_or(kChoicesMax));
      }
    } else if (name == "stream") {
      once("stream");
      request.stream = value.dump() == "true";
    } else if (name == "stream_options" && api == ModelApi::kChat) {
      once("stream_options");
      request.asks_usage = value["include_usage"].dump() == "true";
    }
  });
  if (request.model.empty()) request.model = deployment.substr(0, kNameBytes);
  if (request.defect.empty() && request.model.empty()) {
    request.defect = "the request names no model";
  }
  read_depths(*json, request);
  return request;
}

namespace {

constexpr std::string_view kBlanks = " \t\r\n";

// The end of the string that begins at `at`, in JSON that was read before.
std::size_t string_end(std::string_view json, std::size_t at) {
  for (++at; at < json.size() && json[at] != '"'; ++at) {
    if (json[at] == '\\') ++at;
  }
  return std::min(at + 1, json.size());
}

std::size_t value_end(std::string_view json, std::size_t at) {
  int depth = 0;
  while (at < json.size()) {
    const char c = json[at];
    if (depth == 0 && (c == ',' || c == '}' || c == ']')) return at;
    if (c == '"') {
      at = string_end(json, at);
      continue;
    }
    if (c == '{' || c == '[') ++depth;
    if (c == '}' || c == ']') --depth;
    ++at;
  }
  return at;
}

struct Place {
  std::size_t begin = 0, end = 0;
};

// Of a top-level member's value in a JSON object that was read before.
std::optional<Place> find_member(std::string_view json, std::string_view wanted) {
  std::size_t at = json.find('{') + 1;
  for (;;) {
    at = json.find_first_not_of(", \t\r\n", at);
    if (at == std::string_view::npos || json[at] != '"') return std::nullopt;
    const std::size_t name_end = string_end(json, at);
    const auto name = Json::try_parse(json.substr(at, name_end - at));
    at = json.find_first_not_of(kBlanks, json.find(':', name_end) + 1);
    if (at == std::string_view::npos) return std::nullopt;
    const std::size_t end = value_end(json, at);
    if (name && name->as_string() == wanted) return Place{at, end};
    at = end;
  }
}

}  // namespace

std::string with_usage_asked(std::string_view body) {
  std::string asked(body);
  if (const auto place = find_member(body, "stream_options")) {
    Json options = Json::try_parse(trim(body.substr(place->begin, place->end - place->begin)))
                       .value_or(Json());
    if (!options.is_object()) options = Json::object();
    options.set("include_usage", true);
    return asked.replace(place->begin, place->end - place->begin, options.dump());
  }
  return asked.insert(body.find('{') + 1, R"("stream_options":{"include_usage":true},)");
}

// ---- the usage chunk ----

namespace {

bool is_usage_chunk(std::string_view event) {
  if (event.find("usage") == std::string_view::npos) return false;
  bool only_usage = false;
  int events = 0;
  net::EventStreamReader reader(event.size() + 1);
  reader.take(event, [&](const net::StreamEvent& told) {
    ++events;
    JsonReaderLease json;
    const auto data = json->read(told.data);
    if (!data || !data->is_object()) return;
    only_usage = (*data)["usage"].is_object() && (*data)["choices"].is_array() &&
                 !(*data)["choices"].front().given();
  });
  return events == 1 && only_usage;
}

}  // namespace

void UsageChunkFilter::end_event() {
  dropped_last_ = !passing_ && is_usage_chunk(event_);
  if (!dropped_last_) out_.append(event_);
  event_.clear();
  passing_ = false;
}

std::string_view UsageChunkFilter::take(std::string_view bytes) {
  out_.clear();
  for (const char c : bytes) {
    if (c == '\n' && std::exchange(after_cr_, false)) {
      if (!event_.empty() || passing_) {
        event_.push_back(c);
      } else if (!dropped_last_) {
        out_.push_back(c);
      }
      continue;
    }
    after_cr_ = c == '\r';
    event_.push_back(c);
    if (c == '\n' || c == '\r') {
      if (std::exchange(line_is_empty_, true)) end_event();
    } else {
      line_is_empty_ = false;
    }
    if (event_.size() > kUsageChunkBytes) passing_ = true;
    if (passing_) {
      out_.append(event_);
      event_.clear();
    }
  }
  return out_;
}

std::string_view UsageChunkFilter::finish() {
  out_ = std::exchange(event_, {});
  return out_;
}

// ---- answers ----

class AnswerMeter::Reader final : private AnswerPieces {
 public:
  explicit Reader(ModelApi api) : dialect_(dialect_of(api)) {}

  void begin(const net::HttpResponse& head) {
    const std::string type = ascii_lower(head.headers.get_or("content-type", ""));
    is_json_ = type.find("json") != std::string::npos;
    form_ = type.find("event-stream") != std::string::npos ? Form::kEvents : Form::kUnknown;
  }
  void take(std::string_view bytes);
  bool ended() const { return ended_; }
  Verdict verdict(bool whole);
  Usage usage(std::int64_t prompt_estimate) const;
  std::int64_t hour_cache_tokens() const { return completion_.counts.hour_cache_write; }
  bool bills_nothing_more() const { return told_failure_ || foreign_; }
  const std::string& model() const { return completion_.model; }

 private:
  enum class Form { kUnknown, kEvents, kWhole };
  // What cannot be read on.
  struct Broken {
    Verdict verdict;
  };

  void take_event(const net::StreamEvent& event);
  void read_whole_answer();
  void broken(Verdict verdict) {
    if (!broken_) broken_ = std::move(verdict);
  }
  // Of the texts one character stays: the dialects ask whether there were any.
  void count(std::string_view piece, std::string& kept) {
    if (piece.empty()) return;
    end_.progressed();
    text_bytes_ += piece.size();
    kept = "…";
  }

  Completion& completion() override { return completion_; }
  void text(std::string_view piece) override { count(piece, completion_.content); }
  void reasoning(std::string_view piece) override { count(piece, completion_.reasoning); }
  void refusal(std::string_view piece) override { count(piece, completion_.refusal); }
  void tool_call(std::optional<std::size_t>, std::string_view, std::string_view name,
                 std::string_view arguments) override {
    end_.progressed();
    text_bytes_ += name.size() + arguments.size();
  }
  void whole_arguments(std::size_t, std::string_view) override {}
  bool has_tool_call(std::size_t) const override { return true; }
  void finish(std::string_view, Finish meaning) override { end_.finish(meaning); }
  void end() override { ended_ = true; }
  [[noreturn]] void malformed(const std::string& reason) override {
    throw Broken{{ExchangeClass::kProtocol, reason}};
  }
  [[noreturn]] void fail(const ErrorWords& words) override {
    told_failure_ = !broken_;
    throw Broken{{class_of(status_of(words), words),
                  "the service failed in the middle of its answer: " + words.message}};
  }

  const Dialect& dialect_;
  Form form_ = Form::kUnknown;
  bool is_json_ = false;
  net::EventStreamReader events_;
  JsonReaderLease json_;
  std::string whole_;
  Completion completion_;
  StreamEnd end_;
  std::size_t text_bytes_ = 0;
  bool ended_ = false;
  bool complete_ = false;
  bool unreadable_ = false;
  bool told_failure_ = false;
  bool foreign_ = false;  // whole, and no JSON object
  std::optional<Verdict> broken_;
};

void AnswerMeter::Reader::take(std::string_view bytes) {
  if (form_ == Form::kUnknown) {
    form_ = !is_json_ && looks_like_events(trim(bytes)) ? Form::kEvents : Form::kWhole;
  }
  if (unreadable_) return;
  if (form_ == Form::kWhole) {
    if (whole_.size() + bytes.size() <= limits::kModelAnswerBytes) {
      whole_.append(bytes);
      return;
    }
    unreadable_ = true;
    text_bytes_ = std::exchange(whole_, {}).size();
    return broken({ExchangeClass::kProtocol, "the answer is too large to be read"});
  }
  try {
    events_.take(bytes, [this](const net::StreamEvent& event) { take_event(event); });
  } catch (const InvalidResponse& error) {
    unreadable_ = true;
    broken({ExchangeClass::kProtocol, error.summary()});
  }
}

void AnswerMeter::Reader::take_event(const net::StreamEvent& event) {
  if (ended_) return;
  const std::string_view text = trim(event.data);
  if (text.empty()) return;
  if (text == kStreamDone) return end();
  end_.begin_event();
  try {
    const auto data = json_->read(event.data);
    if (!data || !data->is_object()) malformed("an event of the answer is no JSON object");
    dialect_.read_event(event.name, *data, *this);
  } catch (const Broken& found) {
    broken(found.verdict);
  }
  // What the end of a response repeats.
  completion_.tool_calls.clear();
  for (std::string* kept : {&completion_.content, &completion_.reasoning, &completion_.refusal}) {
    if (!kept->empty()) *kept = "…";
  }
}

void AnswerMeter::Reader::read_whole_answer() {
  const std::string body = std::exchange(whole_, {});
  foreign_ = !trim(body).starts_with('{');
  try {
    completion_ = read_whole(dialect_, body, 200);
    complete_ = true;
  } catch (const InvalidResponse& error) {
    broken({ExchangeClass::kProtocol, error.what()});
  }
  text_bytes_ = completion_.content.size() + completion_.reasoning.size();
  for (const ToolCall& call : completion_.tool_calls) text_bytes_ += call.arguments.size();
}

Verdict AnswerMeter::Reader::verdict(bool whole) {
  if (form_ != Form::kEvents && whole && !unreadable_) {
    read_whole_answer();
  } else if (form_ == Form::kWhole) {
    text_bytes_ = std::max(text_bytes_, whole_.size());
  } else {
    complete_ = end_.is_finished(ended_);
  }
  if (broken_) return *broken_;
  if (complete_) return {};
  return {ExchangeClass::kUnavailable, "the answer broke off: it ended without saying so"};
}

Usage AnswerMeter::Reader::usage(std::int64_t prompt_estimate) const {
  const TokenCounts& counts = completion_.counts;
  Usage usage;
  // Of an answer that is none nothing is known.
  if (broken_ && text_bytes_ == 0 && !counts.prompt) {
    usage.estimated = true;
    return usage;
  }
  const std::int64_t prompt = counts.prompt.value_or(0);
  const std::int64_t told = counts.completion.value_or(0);
  const std::int64_t texts = estimate_tokens(text_bytes_);
  const bool counted = complete_ && prompt > 0 && (told > 0 || text_bytes_ == 0);
  usage.estimated = !counted;
  usage.prompt_tokens = prompt > 0 ? prompt : prompt_estimate;
  // Of a stream that broke off, the count that came first is not its last.
  usage.completion_tokens = complete_ && told > 0 ? told : std::max(told, texts);
  usage.total_tokens =
      std::max(counts.total.value_or(0), usage.prompt_tokens + usage.completion_tokens);
  usage.cached_tokens = counts.cached;
  usage.cache_write_tokens = counts.cache_write;
  usage.reasoning_tokens = counts.reasoning;
  return usage;
}

AnswerMeter::AnswerMeter(ModelApi api) : reader_(std::make_unique<Reader>(api)) {}
AnswerMeter::~AnswerMeter() = default;
void AnswerMeter::begin(const net::HttpResponse& head) {
  reader_->begin(head);
}
void AnswerMeter::take(std::string_view bytes) {
  reader_->take(bytes);
}
bool AnswerMeter::ended() const {
  return reader_->ended();
}
Verdict AnswerMeter::verdict(bool whole) {
  return reader_->verdict(whole);
}
Usage AnswerMeter::usage(std::int64_t prompt_estimate) const {
  return reader_->usage(prompt_estimate);
}
std::int64_t AnswerMeter::hour_cache_tokens() const {
  return reader_->hour_cache_tokens();
}
bool AnswerMeter::bills_nothing_more() const {
  return reader_->bills_nothing_more();
}
const std::string& AnswerMeter::model() const {
  return reader_->model();
}

}  // namespace necrocode::llm
