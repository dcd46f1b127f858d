// What a model, its service and the tests may do, and how a run of the Agent Runner ends then: the
// rows of the matrix.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "e2e/fixture.hpp"
#include "e2e/matrix_repositories.hpp"
#include "necrocode/base/time_format.hpp"

namespace necrocode::test {

/// What one cell of the matrix is made of.
struct Scene {
  Repository repository;
  std::string key;   ///< the model service's, which nothing may show
  fs::path outside;  ///< a folder beside the workspace
  std::string mark;  ///< seconds to sleep, in no other command line of this machine
  SystemTime soon;   ///< a little after the run begins

  /// The text of an answer with this change of the source, and more files.
  std::string changing(const std::string& source,
                       const std::vector<std::pair<std::string, std::string>>& more = {}) const {
    std::vector<std::pair<std::string, std::string>> files = {{repository.source, source}};
    files.insert(files.end(), more.begin(), more.end());
    return change(files).dump();
  }
  std::string right() const { return changing(repository.right); }
  Json says_right() const { return answer(right()); }
  Json says_too_small() const { return answer(changing(repository.too_small)); }
  Json says_too_large() const { return answer(changing(repository.too_large)); }
  /// The right change beside one of a path that is none of its business; for ever.
  Json says_right_and(const std::string& path) const {
    return answer(changing(repository.right, {{path, "escaped\n"}}), 0);
  }
  /// In the test runner's output, and nowhere in the repository.
  std::string complaint(int is, int expected) const {
    return std::to_string(is) + repository.unequal + std::to_string(expected);
  }
};

/// How far a run comes: what is left of it then.
enum class Reach { kModel, kTests, kPush };

struct Ending {
  int exit_code;
  std::string failure_class;  ///< of the result's error; "" without one
  std::string state;          ///< of the task in the registry
  Reach reach;
};

inline const Ending kDone{0, "", "done", Reach::kPush};
inline const Ending kTestsFailed{1, "tests", "failed", Reach::kTests};
inline const Ending kOutOfTime{4, "infrastructure", "ready", Reach::kTests};
inline const Ending kRefused{6, "agent", "failed", Reach::kModel};
inline const Ending kHoldsSecret{6, "agent", "failed", Reach::kModel};
inline const Ending kNoAccess{7, "quota", "failed", Reach::kModel};
inline const Ending kUnusable{8, "agent", "failed", Reach::kModel};
inline const Ending kUnavailable{9, "infrastructure", "ready", Reach::kModel};
inline const Ending kOverALimit{11, "tests", "failed", Reach::kTests};

/// A run as it was seen from outside.
struct Seen {
  Json result;
  std::vector<Json> events;
  const Scene& scene;

  const Json& event(const std::string& type, const std::string& phase = "") const {
    for (const Json& one : events) {
      if (one["type"] == Json(type) && (phase.empty() || one["phase"] == Json(phase))) return one;
    }
    static const Json none;
    return none;
  }
  SystemTime time_of(const std::string& type, const std::string& phase = "") const {
    return parse_rfc3339(event(type, phase)["time"].string_or("")).value_or(SystemTime{});
  }
  std::chrono::nanoseconds model_call_took() const {
    return time_of("model_call") - time_of("phase", "implement");
  }
};

struct Behaviour {
  std::string name;
  Json::Array (*answers)(const Scene&);
  Ending end = kDone;
  std::string reason{};  ///< a part of the result's error
  int repairs = 0;
  int reasks = 0;
  int retries = 0;  ///< of the transport, in all
  bool baseline = false;
  bool link_outside = false;  ///< the repository has one, `link`
  /// Runs before the repository's tests: a test command that is not what it should be.
  std::string (*first_command)(const Scene&) = nullptr;
  std::string settings{};  ///< of the configuration
  Json::Object fields{};   ///< of the task
  void (*also)(const Seen&) = nullptr;
};

inline void PrintTo(const Behaviour& behaviour, std::ostream* out) {
  *out << behaviour.name;
}

/// The entry that answers what holds `text`.
inline Json when_told(const std::string& text, Json entry) {
  entry.set("match", Json::object({{"contains", std::vector<std::string>{text}}}));
  return entry;
}

/// A misbehaviour of the replay server in the place of an answer.
inline Json drill(const std::string& name, int times, const std::string& content = "") {
  Json what = Json::object({{"drill", name}});
  if (!content.empty()) what.set("content", content);
  return Json::object({{"times", times}, {"answer", std::move(what)}});
}

inline Json refusal(int status, const std::string& code, int times = 0) {
  const Json error = Json::object({{"message", "replayed: " + code}, {"code", code}});
  return raw_answer(status, Json::object({{"error", error}}), times);
}

inline Json rate_limit(const std::string& header, const std::string& value) {
  Json entry = refusal(429, "rate_limit_exceeded", 1);
  Json what = entry["answer"];
  what.set("headers", Json::object({{header, value}}));
  return entry.set("answer", std::move(what));
}

/// A whole completion, which a service may answer with although it was asked for a stream.
inline Json whole(Json message, int times = 1) {
  message.set("role", "assistant");
  const Json choice =
      Json::object({{"index", 0}, {"finish_reason", "stop"}, {"message", std::move(message)}});
  return raw_answer(
      200, Json::object({{"object", "chat.completion"}, {"choices", Json::Array{choice}}}), times);
}

inline Json with(Json entry, const std::string& member, Json value) {
  Json what = entry["answer"];
  what.set(member, std::move(value));
  return entry.set("answer", std::move(what));
}

inline std::vector<Behaviour> answers_that_are_used() {
  return {
      {.name = "Right",
       .answers = [](const Scene& scene) { return Json::Array{scene.says_right()}; },
       .baseline = true},
      {.name = "InFences",
       .answers =
           [](const Scene& scene) {
             return Json::Array{answer("```json\n" + scene.right() + "\n```\n")};
           }},
      {.name = "WithProse",
       .answers =
           [](const Scene& scene) {
             return Json::Array{answer("Both bounds {low, high} count, so:\n\n" + scene.right() +
                                       "\n\nThat is all there is to it.\n")};
           }},
      {.name = "StreamedInSmallPieces",
       .answers =
           [](const Scene& scene) {
             return Json::Array{with(with(scene.says_right(), "chunk", 3), "delay_ms", 1)};
           }},
      {.name = "WholeInsteadOfStreamed",
       .answers =
           [](const Scene& scene) {
             return Json::Array{whole(Json::object({{"content", scene.right()}}))};
           }},
      {.name = "WrongOnce",
       .answers =
           [](const Scene& scene) {
             return Json::Array{scene.says_too_small(),
                                when_told(scene.complaint(9, 5), scene.says_right())};
           },
       .repairs = 1},
      {.name = "WrongTwice",
       .answers =
           [](const Scene& scene) {
             return Json::Array{scene.says_too_small(),
                                when_told(scene.complaint(9, 5), scene.says_too_large()),
                                when_told(scene.complaint(-3, 0), scene.says_right())};
           },
       .repairs = 2},
      {.name = "NeverRight",
       .answers =
           [](const Scene& scene) {
             return Json::Array{scene.says_too_small(), scene.says_too_large(),
                                answer(scene.changing(scene.repository.too_small + "\n"), 0)};
           },
       .end = kTestsFailed,
       .reason = "failed with exit code",
       .repairs = 2},
      {.name = "WrongAndRepeatsItself",
       .answers =
           [](const Scene& scene) {
             return Json::Array{answer(scene.changing(scene.repository.too_small), 0)};
           },
       .end = kTestsFailed,
       .reason = "the model repeats its answer",
       .repairs = 1},
  };
}

inline std::vector<Behaviour> answers_that_cannot_be_used() {
  return {
      {.name = "NoJson",
       .answers = [](const Scene&) { return Json::Array{answer("I would rather not.", 0)}; },
       .end = kUnusable,
       .reason = "there is no JSON object in it",
       .reasks = 2},
      {.name = "TruncatedJson",
       .answers =
           [](const Scene& scene) {
             const std::string text = scene.right();
             return Json::Array{answer(text.substr(0, text.size() / 2), 0)};
           },
       .end = kUnusable,
       .reason = "not usable",
       .reasks = 2},
      {.name = "TruncatedJsonOnce",
       .answers =
           [](const Scene& scene) {
             const std::string text = scene.right();
             return Json::Array{answer(text.substr(0, text.size() / 2)),
                                when_told("was not used, because", scene.says_right())};
           },
       .reasks = 1},
      {.name = "CutOffAtItsLength",
       .answers =
           [](const Scene& scene) {
             return Json::Array{with(answer(scene.right(), 0), "finish_reason", "length")};
           },
       .end = kUnusable,
       .reason = "cut off at the token limit",
       .reasks = 2},
      {.name = "NullContent",
       .answers =
           [](const Scene&) {
             const Json message = Json::object({{"content", nullptr}});
             return Json::Array{whole(message, 0)};
           },
       .end = kUnusable,
       .reason = "its content is null",
       .reasks = 2},
      {.name = "Refusal",
       .answers =
           [](const Scene&) {
             return Json::Array{
                 whole(Json::object({{"content", nullptr}, {"refusal", "I cannot help"}}), 0)};
           },
       .end = kUnusable,
       .reason = "the model refused",
       .reasks = 2},
      {.name = "WebPageWithStatus200",
       .answers = [](const Scene&) { return Json::Array{drill("html", 0)}; },
       .end = kUnusable,
       .reason = "not a completion",
       .reasks = 2},
      {.name = "PathOutOfTheWorkspace",
       .answers =
           [](const Scene& scene) { return Json::Array{scene.says_right_and("../escaped")}; },
       .end = kRefused,
       .reason = "refused path",
       .reasks = 2},
      {.name = "AbsolutePath",
       .answers =
           [](const Scene& scene) {
             return Json::Array{scene.says_right_and((scene.outside / "escaped").string())};
           },
       .end = kRefused,
       .reason = "refused path",
       .reasks = 2},
      {.name = "PathIntoDotGit",
       .answers =
           [](const Scene& scene) {
             return Json::Array{scene.says_right_and(".git/hooks/escaped")};
           },
       .end = kRefused,
       .reason = "refused path",
       .reasks = 2},
      {.name = "PathThroughALink",
       .answers =
           [](const Scene& scene) { return Json::Array{scene.says_right_and("link/escaped")}; },
       .end = kRefused,
       .reason = "refused path",
       .reasks = 2,
       .link_outside = true},
      {.name = "TestsEdited",
       .answers =
           [](const Scene& scene) {
             return Json::Array{scene.says_right_and(scene.repository.tests)};
           },
       .end = kUnusable,
       .reason = "is read-only for this task",
       .reasks = 2},
      {.name = "TestsEditedOnce",
       .answers =
           [](const Scene& scene) {
             return Json::Array{
                 answer(scene.changing(scene.repository.right, {{scene.repository.tests, ""}})),
                 when_told("is read-only for this task", scene.says_right())};
           },
       .reasks = 1},
      {.name = "KeyInTheChange",
       .answers =
           [](const Scene& scene) {
             return Json::Array{
                 answer(scene.changing(scene.repository.right, {{"notes.txt", scene.key + "\n"}}))};
           },
       .end = kHoldsSecret,
       .reason = "the change holds a secret"},
  };
}

inline std::vector<Behaviour> services_that_fail() {
  return {
      {.name = "Status401",
       .answers = [](const Scene&) { return Json::Array{refusal(401, "invalid_api_key")}; },
       .end = kNoAccess,
       .reason = "refused the API key"},
      {.name = "Status400OfTheContext",
       .answers = [](const Scene&) { return Json::Array{refusal(400, "context_length_exceeded")}; },
       .end = kUnusable,
       .reason = "the prompt is longer than the model can read"},
      {.name = "Status429ForASecond",
       .answers =
           [](const Scene& scene) {
             return Json::Array{rate_limit("Retry-After", "1"), scene.says_right()};
           },
       .retries = 1,
       .also =
           [](const Seen& seen) { EXPECT_GE(seen.model_call_took(), std::chrono::seconds{1}); }},
      {.name = "Status429UntilADate",
       .answers =
           [](const Scene& scene) {
             return Json::Array{rate_limit("Retry-After", to_http_date(scene.soon)),
                                scene.says_right()};
           },
       .retries = 1,
       .also =
           [](const Seen& seen) {
             EXPECT_GE(seen.time_of("model_call"),
                       std::chrono::floor<std::chrono::seconds>(seen.scene.soon));
           }},
      {.name = "Status429ForMilliseconds",
       .answers =
           [](const Scene& scene) {
             return Json::Array{rate_limit("retry-after-ms", "1200"), scene.says_right()};
           },
       .retries = 1,
       .also =
           [](const Seen& seen) {
             EXPECT_GE(seen.model_call_took(), std::chrono::milliseconds{1200});
           }},
      {.name = "Status429ForEver",
       .answers = [](const Scene&) { return Json::Array{refusal(429, "rate_limit_exceeded")}; },
       .end = kUnavailable,
       .reason = "limits the rate of calls",
       .retries = 1},
      {.name = "Status429OfAUsedUpQuota",
       .answers = [](const Scene&) { return Json::Array{refusal(429, "insufficient_quota")}; },
       .end = kNoAccess,
       .reason = "quota is used up"},
      {.name = "Status500Once",
       .answers =
           [](const Scene& scene) {
             return Json::Array{refusal(500, "server_error", 1), scene.says_right()};
           },
       .retries = 1},
      {.name = "Status500ForEver",
       .answers = [](const Scene&) { return Json::Array{refusal(500, "server_error")}; },
       .end = kUnavailable,
       .reason = "the model service failed",
       .retries = 1},
      {.name = "ResetOnce",
       .answers =
           [](const Scene& scene) {
             const Json reset = drill("reset", 1);
             return Json::Array{reset, scene.says_right()};
           },
       .retries = 1},
      {.name = "ResetForEver",
       .answers = [](const Scene&) { return Json::Array{drill("reset", 0)}; },
       .end = kUnavailable,
       .retries = 1},
      {.name = "BodyEndsEarlyOnce",
       .answers =
           [](const Scene& scene) {
             return Json::Array{drill("truncate", 1, scene.right()), scene.says_right()};
           },
       .retries = 1},
      {.name = "Silence",
       .answers = [](const Scene&) { return Json::Array{drill("stall", 0)}; },
       .end = kUnavailable,
       .retries = 1,
       .settings = "llm: {timeout_seconds: 0.4}\n"},
  };
}

inline std::vector<Behaviour> tests_that_misbehave() {
  return {
      {.name = "TestsEmptiedWhileTheyRun",
       .answers =
           [](const Scene& scene) {
             return Json::Array{answer(scene.changing(scene.repository.overwriting), 0)};
           },
       .end = kTestsFailed,
       .reason = "changed the read-only file",
       .repairs = 1},
      {.name = "TestsHang",
       .answers =
           [](const Scene& scene) {
             return Json::Array{scene.says_right(),
                                when_told("timed out after", scene.says_right())};
           },
       .end = kTestsFailed,
       .reason = "timed out after",
       .repairs = 1,
       .first_command =
           [](const Scene& scene) {
             return "trap '' TERM INT HUP; while true; do sleep " + scene.mark + "; done";
           },
       .fields = {{"test_timeout_seconds", 1}}},
      {.name = "TestsHangLongerThanTheTask",
       .answers = [](const Scene& scene) { return Json::Array{scene.says_right()}; },
       .end = kOutOfTime,
       .reason = "the task's time",
       .first_command = [](const Scene& scene) { return "sleep " + scene.mark; },
       .fields = {{"timeout_seconds", 6}}},
      {.name = "TestsLeaveADaemonThatHoldsStdout",
       .answers = [](const Scene& scene) { return Json::Array{scene.says_right()}; },
       .first_command =
           [](const Scene& scene) {
             return "(setsid sh -c 'echo up >up; exec sleep " + scene.mark +
                    "' &); until [ -s up ]; do sleep 0.01; done";
           }},
      {.name = "TestsPrint50Megabytes",
       .answers = [](const Scene& scene) { return Json::Array{scene.says_right()}; },
       .first_command = [](const Scene&) -> std::string {
         return "head -c 52428800 /dev/zero | tr '\\0' x";
       },
       .also =
           [](const Seen& seen) {
             const Json& command = seen.result["tests"]["commands"].items().at(0);
             EXPECT_EQ(command["stdout"]["bytes"], Json(52'428'800));
           }},
      {.name = "TestsReachForWhatIsNotTheirs",
       .answers = [](const Scene& scene) { return Json::Array{scene.says_right()}; },
       .first_command =
           [](const Scene& scene) {
             const std::string outside = scene.outside.string();
             return "env; cat /proc/*/environ /proc/*/cmdline | tr '\\0' '\\n'; cat '" + outside +
                    "'/*; echo escaped >'" + outside + "/escaped'; echo escaped >../escaped; true";
           }},
      {.name = "TestsPrintTheKey",
       .answers = [](const Scene& scene) { return Json::Array{scene.says_right()}; },
       .first_command =
           [](const Scene& scene) {
             const std::string half = scene.key.substr(scene.key.size() / 2);
             return "echo " + scene.key.substr(0, scene.key.size() / 2) + "''" + half;
           }},
  };
}

inline std::vector<Behaviour> tests_over_a_limit() {
  return {
      {.name = "TestsEatMemory",
       .answers = [](const Scene& scene) { return Json::Array{answer(scene.right(), 0)}; },
       .end = kOverALimit,
       .reason = "exceeded its memory limit of 256 MiB",
       .repairs = 1,
       .first_command = [](const Scene&) -> std::string {
         return "python3 -c \"len(b'x' * (1 << 30))\"";
       },
       .settings = "max_memory_mb: 256\n"},
  };
}

inline std::vector<Behaviour> behaviours() {
  std::vector<Behaviour> all;
  for (auto rows : {answers_that_are_used(), answers_that_cannot_be_used(), services_that_fail(),
                    tests_that_misbehave(), tests_over_a_limit()}) {
    all.insert(all.end(), rows.begin(), rows.end());
  }
  return all;
}

}  // namespace necrocode::test
