#include "necrocode/registry/claim_queue.hpp"

#include <future>

#include "store_fixture.hpp"

namespace necrocode::registry {
namespace {

using std::chrono::seconds;

/// A client that takes its answer, or is gone.
class FakeClient final : public net::Parked {
 public:
  explicit FakeClient(bool gone) : gone_(gone) {}
  bool complete(net::Response response) override {
    if (gone_) {
      asked_.set_value();
      return false;
    }
    answer_.set_value(std::get<std::string>(response.body));
    return true;
  }
  bool waiting() const override { return true; }
  std::string answer() { return answered_.get(); }
  void wait_until_asked() { was_asked_.get(); }

 private:
  bool gone_;
  std::promise<std::string> answer_;
  std::future<std::string> answered_ = answer_.get_future();
  std::promise<void> asked_;
  std::future<void> was_asked_ = asked_.get_future();
};

class ClaimQueueTest : public StoreTest {
 protected:
  static net::Response task_id(const ClaimOutcome& outcome) {
    if (outcome.refusal) return net::Response::text(409, "refused");
    const std::vector<ClaimedTask>& claimed = outcome.claimed;
    return claimed.empty() ? net::Response::empty(204)
                           : net::Response::text(200, claimed.front().task.id);
  }
  std::shared_ptr<net::ParkRequest> park(const std::string& runner,
                                         std::optional<std::string> only = {}) {
    ClaimRequest request;
    request.task_id = std::move(only);
    request.runner_id.value = runner;
    request.wait = seconds(30);
    net::Response response = queue.claim(request);
    const auto* parked = std::get_if<std::shared_ptr<net::ParkRequest>>(&response.body);
    EXPECT_NE(parked, nullptr) << "it did not wait";
    return parked ? *parked : nullptr;
  }
  std::shared_ptr<FakeClient> wait(const std::string& runner, bool gone = false) {
    auto client = std::make_shared<FakeClient>(gone);
    park(runner)->start(client);
    return client;
  }

  std::shared_ptr<FakeClient> wait_for(const std::string& task_id) {
    auto client = std::make_shared<FakeClient>(false);
    park("choosy", task_id)->start(client);
    return client;
  }

  ClaimQueue queue{*store, clock, task_id};
};

TEST_F(ClaimQueueTest, ClaimOfAClientThatIsGoneGoesToTheNextInOrder) {
  const auto gone = wait("gone", true);
  const auto second = wait("second");
  const auto third = wait("third");
  store->submit(submission("app", {task_spec("1")}));
  gone->wait_until_asked();
  EXPECT_EQ(second->answer(), "app:1");
  const Task task = store->task("app:1");
  EXPECT_EQ(task.runner_id, "second");
  EXPECT_EQ(task.attempt, 1);  // what nobody got counts as no attempt
  store->submit(submission("app", {task_spec("2")}));
  EXPECT_EQ(third->answer(), "app:2");
}

TEST_F(ClaimQueueTest, ClaimsAreServedInOrderOfArrival) {
  std::vector<std::shared_ptr<FakeClient>> clients;
  for (int i = 0; i < 10; ++i) clients.push_back(wait("r" + std::to_string(i)));
  std::vector<TaskSpec> tasks;
  for (int i = 0; i < 10; ++i) tasks.push_back(task_spec(std::to_string(i)));
  store->submit(submission("app", tasks));
  for (int i = 0; i < 10; ++i) EXPECT_EQ(clients[i]->answer(), "app:" + std::to_string(i));
}

TEST_F(ClaimQueueTest, TaskThatBecameReadyBeforeParkingIsNotMissed) {
  const auto parked = park("slow");
  store->submit(submission("app", {task_spec("1")}));  // between its claim and its start
  const auto client = std::make_shared<FakeClient>(false);
  parked->start(client);
  EXPECT_EQ(client->answer(), "app:1");
}

TEST_F(ClaimQueueTest, TimedOutOrDisconnectedClaimTakesNothing) {
  const auto late = park("late");
  late->start(std::make_shared<FakeClient>(true));
  EXPECT_EQ(late->on_timeout().status, 204);
  const auto left = park("left");
  left->start(std::make_shared<FakeClient>(true));
  left->on_gone();
  store->submit(submission("app", {task_spec("1")}));
  EXPECT_EQ(claim_one().task.id, "app:1");
}

TEST_F(ClaimQueueTest, LeaseThatEndsWhileTheThreadSleepsIsNoticed) {
  store->submit(submission("app", {task_spec("1")}));
  ClaimRequest request;
  request.lease = seconds(7);
  EXPECT_EQ(store->claim({request}).front().claimed.size(), 1u);
  const auto waiting = wait("next");
  clock.advance(seconds(7));
  EXPECT_EQ(waiting->answer(), "app:1");
}

TEST_F(ClaimQueueTest, WaitingClaimThatCanNoLongerSucceedIsRefusedAlone) {
  store->submit(submission("a", {task_spec("1"), task_spec("2", {"1"}), task_spec("3", {"1"})}));
  ClaimRequest request;
  request.lease = seconds(7);
  EXPECT_EQ(store->claim({request}).front().claimed.size(), 1u);  // a:1
  const auto ambiguous = wait_for("2");
  const auto removed = wait_for("a:3");
  const auto any = wait("any");
  store->submit(submission("b", {task_spec("2", {"a:1"})}));
  Submission without = submission("a", {task_spec("1"), task_spec("2", {"1"})});
  without.replace = true;
  store->submit(without);
  clock.advance(seconds(7));  // the lease ends, whatever the others asked for
  EXPECT_EQ(any->answer(), "a:1");
  EXPECT_EQ(ambiguous->answer(), "refused");
  EXPECT_EQ(removed->answer(), "refused");
}

}  // namespace
}  // namespace necrocode::registry
