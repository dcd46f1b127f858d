#include "necrocode/net/idempotency.hpp"

#include <gmock/gmock.h>

#include <map>

namespace necrocode::net {
namespace {

/// Keeps in memory; a transaction that throws undoes what it kept.
class MemoryAnswers final : public IdempotencyStore {
 public:
  std::optional<KeptAnswer> find(const std::string& name) override {
    const auto found = answers.find(name);
    return found == answers.end() ? std::nullopt : std::optional(found->second);
  }
  void keep(const std::string& name, const KeptAnswer& answer) override {
    answers.emplace(name, answer);
  }
  void forget(const std::string& name) override { answers.erase(name); }

  void transact(const std::function<void(IdempotencyStore&)>& work) {
    const auto before = answers;
    try {
      work(*this);
    } catch (...) {
      answers = before;
      throw;
    }
  }
  std::map<std::string, KeptAnswer> answers;
};

Request post(const std::string& key, const std::string& body = "{}") {
  Request request;
  request.method = "POST";
  request.target = request.path = "/things/1";
  request.route = "/things/{id}";
  request.body = body;
  request.headers.set("Idempotency-Key", key);
  return request;
}

class IdempotencyTest : public testing::Test {
 protected:
  Response answer(const Request& request, const std::function<Response()>& make) {
    return answer_once(
        request,
        [this](const std::function<void(IdempotencyStore&)>& work) { answers_.transact(work); },
        [&] {
          ++effects_;
          return make();
        });
  }
  Response answer(const Request& request, int status = 201, const std::string& body = "made") {
    return answer(request, [&] {
      Response response = Response::text(status, body + std::to_string(effects_));
      response.headers.set("ETag", "\"7\"");
      return response;
    });
  }
  int status_of(const Request& request, const std::function<Response()>& make) {
    try {
      return answer(request, make).status;
    } catch (const std::exception& error) {
      return problem_for(error, request).status;
    }
  }
  static std::string body(const Response& response) { return std::get<std::string>(response.body); }

  MemoryAnswers answers_;
  int effects_ = 0;
};

TEST_F(IdempotencyTest, ToldAgainTheFirstAnswerComesAndNothingHappens) {
  const Response first = answer(post("k"));
  const Response again = answer(post("k"));
  EXPECT_EQ(effects_, 1);
  EXPECT_EQ(again.status, 201);
  EXPECT_EQ(body(again), body(first));
  EXPECT_EQ(again.headers.get("ETag"), "\"7\"");
  EXPECT_EQ(again.headers.get("Content-Type"), first.headers.get("Content-Type"));
  EXPECT_EQ(again.headers.get("Idempotent-Replayed"), "true");
  EXPECT_FALSE(first.headers.get("Idempotent-Replayed"));
}

TEST_F(IdempotencyTest, WithoutAKeyEachCallCounts) {
  Request request = post("k");
  request.headers.erase("Idempotency-Key");
  answer(request);
  answer(request);
  EXPECT_EQ(effects_, 2);
  EXPECT_TRUE(answers_.answers.empty());
}

TEST_F(IdempotencyTest, OtherBodyOrTargetIsRefusedAndTheFirstAnswerStays) {
  answer(post("k"));
  Request other = post("k");
  other.target = other.path = "/things/2";
  for (const Request& request : {post("k", R"({"a":1})"), other}) {
    EXPECT_EQ(status_of(request, [] { return Response::empty(200); }), 422);
  }
  EXPECT_EQ(effects_, 1);
  EXPECT_EQ(answer(post("k")).status, 201);
}

TEST_F(IdempotencyTest, KeyBelongsToItsRoute) {
  answer(post("k"));
  Request other = post("k");
  other.route = "/others/{id}";
  answer(other);
  other.method = "PUT";
  answer(other);
  EXPECT_EQ(effects_, 3);
}

TEST_F(IdempotencyTest, KeepsExactlyTheseAnswers) {
  for (int status = 200; status < 600; ++status) {
    if (status / 100 == 3) continue;
    const bool kept = (status / 100 == 2 && status != 204) ||
                      (status / 100 == 4 && status != 408 && status != 425 && status != 429);
    effects_ = 0;
    const std::string key = std::to_string(status);
    answer(post(key), status);
    answer(post(key), status);
    EXPECT_EQ(effects_, kept ? 1 : 2) << status;
  }
}

TEST_F(IdempotencyTest, RefusalIsKeptThoughItsTransactionWasUndone) {
  const auto refuse = []() -> Response { throw HttpError(409, "not now"); };
  EXPECT_EQ(status_of(post("k"), refuse), 409);
  EXPECT_EQ(status_of(post("k"), [] { return Response::empty(200); }), 409);
  EXPECT_EQ(effects_, 1);
}

TEST_F(IdempotencyTest, FailureIsNotKept) {
  const auto fail = []() -> Response { throw StorageError("the disk is gone"); };
  EXPECT_EQ(status_of(post("k"), fail), 500);
  EXPECT_EQ(status_of(post("k"), [] { return Response::text(200, "now"); }), 200);
  EXPECT_EQ(effects_, 2);
}

TEST_F(IdempotencyTest, KeysThatCannotBeKeysAreRefused) {
  const std::string longest(limits::kIdempotencyKeyBytes, 'k');
  EXPECT_EQ(status_of(post(longest), [] { return Response::text(200, ""); }), 200);
  for (const std::string& key : {std::string(), longest + "k", std::string("a b"),
                                 std::string("caf\xc3\xa9"), std::string("a\x7f")}) {
    EXPECT_EQ(status_of(post(key), [] { return Response::empty(200); }), 400) << key;
  }
  Request twice = post("k");
  twice.headers.add("Idempotency-Key", "l");
  EXPECT_EQ(status_of(twice, [] { return Response::empty(200); }), 400);
}

}  // namespace
}  // namespace necrocode::net
