#include "necrocode/llm/replay_delivery.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <memory>

#include "necrocode/base/errors.hpp"

namespace necrocode::llm {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kLifePause{100};  // between signs of life, when the answer names no delay
constexpr std::string_view kStreamType = "text/event-stream; charset=utf-8";
constexpr std::string_view kJsonType = "application/json";
constexpr std::string_view kGarbage("\x1f\x8b\x08\x00\xff\xfe{]garbage", 15);
constexpr std::string_view kGarbageEvent = "data: {]garbage\xff\n\n";

// What is sent, step by step.
struct Step {
  std::string bytes;
  milliseconds wait{0};   // before it
  std::size_t times = 1;  // with the wait before each
};

struct Script {
  std::string_view content_type;
  std::vector<Step> steps;
  bool cut = false;  // the connection closes at the end, and the body is not whole
};

milliseconds seconds(double count) {
  return milliseconds(std::llround(count * 1000));
}

// Plays a script: one call of next() a wait, one a step.
class Player {
 public:
  explicit Player(Script script) : script_(std::move(script)) {}

  net::FeedBody::Piece next() {
    net::FeedBody::Piece piece;
    if (at_ == script_.steps.size()) {
      if (script_.cut) throw RunnerError("replay drill: cut");
      piece.last = true;
      return piece;
    }
    Step& step = script_.steps[at_];
    if (step.wait.count() > 0 && !std::exchange(waited_, true)) {
      piece.pause = step.wait;
      return piece;
    }
    waited_ = false;
    piece.bytes = step.bytes;
    piece.more = true;
    if (--step.times == 0) ++at_;
    return piece;
  }

 private:
  Script script_;
  std::size_t at_ = 0;
  bool waited_ = false;
};

net::Response play(Script script) {
  net::Response response;
  response.headers.set("Content-Type", std::string(script.content_type));
  response.headers.set("Cache-Control", "no-cache");
  auto feed = std::make_shared<net::FeedBody>();
  feed->start = [](const std::function<void()>&) {};
  feed->next = [player = std::make_shared<Player>(std::move(script))] { return player->next(); };
  response.body = std::move(feed);
  return response;
}

Script stream_script(ModelApi api, const CompletionAnswer& answer, const Question& question) {
  Script script{kStreamType, {}};
  for (std::string& event : streamed_answer(api, answer, question)) {
    script.steps.push_back({std::move(event), answer.delay});
  }
  return script;
}

// A whole body in two halves, so that something can happen between them.
Script body_script(ModelApi api, const CompletionAnswer& answer, const Question& question) {
  const std::string body = whole_answer(api, answer, question).dump();
  return {kJsonType, {{body.substr(0, body.size() / 2)}, {body.substr(body.size() / 2)}}};
}

net::Response stall(ModelApi api, double time) {
  net::ParkRequest park;
  park.timeout = seconds(time);
  park.start = [](const std::shared_ptr<net::Parked>&) {};
  park.on_timeout = [api] {
    return refuse(api, {504, "replay drill: the stall is over", "replay_stall"});
  };
  park.on_gone = [] {};
  return net::Response::park(std::move(park));
}

net::Response keep_alive(ModelApi api, const DrillAnswer& drill, milliseconds pause,
                         const Question& question) {
  if (pause.count() == 0) pause = kLifePause;
  const auto times = static_cast<std::size_t>(seconds(drill.seconds) / pause);
  const std::string sign = question.stream ? sign_of_life(api) : "\n";
  return play({question.stream ? kStreamType : kJsonType, {{sign, pause, times + 1}}, true});
}

net::Response rate_limit(ModelApi api, double retry_after) {
  net::Response response =
      refuse(api, {429, "replay drill: too many requests", "rate_limit_exceeded"});
  const auto whole = static_cast<std::int64_t>(std::ceil(retry_after));
  response.headers.set("Retry-After", std::to_string(whole));
  if (static_cast<double>(whole) != retry_after) {
    response.headers.set("retry-after-ms", std::to_string(seconds(retry_after).count()));
  }
  return response;
}

// The drills that take the whole answer's place; nothing for those that break it in its middle.
std::optional<net::Response> instead(ModelApi api, const DrillAnswer& drill, milliseconds delay,
                                     const Question& question) {
  switch (drill.drill) {
    case Drill::kHtml:
      return net::Response::text(200, "<!doctype html>\n<title>Please log in</title>\n",
                                 "text/html");
    case Drill::kRateLimit:
      return rate_limit(api, drill.retry_after);
    case Drill::kKeepAlive:
      return keep_alive(api, drill, delay, question);
    case Drill::kStall:
      if (!drill.after) return stall(api, drill.seconds);
      return std::nullopt;
    case Drill::kGarbage:
      if (!drill.after) {
        return net::Response::text(200, std::string(kGarbage), std::string(kJsonType));
      }
      return std::nullopt;
    case Drill::kError:
      if (!drill.after || !question.stream) {
        return refuse(api, {drill.status, "replay drill: an error", "replay_error"});
      }
      return std::nullopt;
    case Drill::kReset:
    case Drill::kCut:
    case Drill::kTruncate:
      return std::nullopt;
  }
  return std::nullopt;
}

}  // namespace

net::Response refuse(ModelApi api, const SpokenError& error) {
  return net::Response::json(error.status, error_body(api, error));
}

net::Response deliver(ModelApi api, const CompletionAnswer& answer, const Question& question) {
  if (question.stream) return play(stream_script(api, answer, question));
  return net::Response::json(200, whole_answer(api, answer, question));
}

net::Response deliver(const RawAnswer& answer) {
  net::Response response;
  response.status = answer.status;
  response.headers = answer.headers;
  response.body = answer.body;
  return response;
}

net::Response deliver(ModelApi api, const DrillAnswer& drill, const CompletionAnswer& answer,
                      const Question& question) {
  if (auto response = instead(api, drill, answer.delay, question)) return *std::move(response);
  Script script =
      question.stream ? stream_script(api, answer, question) : body_script(api, answer, question);
  std::vector<Step>& steps = script.steps;
  const std::size_t usual = drill.drill == Drill::kReset ? 0 : steps.size() / 2;
  const std::size_t after = std::min(drill.after.value_or(usual), steps.size());
  const auto place = std::next(steps.begin(), static_cast<std::ptrdiff_t>(after));
  if (drill.drill == Drill::kStall) {
    steps.insert(place, Step{"", seconds(drill.seconds)});
    return play(std::move(script));
  }
  if (drill.drill == Drill::kGarbage) {
    steps.insert(place, Step{std::string(question.stream ? kGarbageEvent : kGarbage)});
    return play(std::move(script));
  }
  // The rest never comes.
  const std::string broken = place == steps.end() ? "" : place->bytes;
  steps.erase(place, steps.end());
  if (drill.drill == Drill::kCut) steps.push_back({broken.substr(0, broken.size() / 2)});
  if (drill.drill == Drill::kError) {
    const SpokenError error{drill.status, "replay drill: an error", "replay_error"};
    steps.push_back({error_event(api, error)});
  }
  script.cut = drill.drill == Drill::kCut || drill.drill == Drill::kReset;
  return play(std::move(script));
}

}  // namespace necrocode::llm
