// The pool manager beside remotes that take a connection and say nothing.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <list>

#include "pool_fixture.hpp"

namespace necrocode::pool::test {
namespace {

using namespace std::chrono_literals;

/// Every wait ends after 20 s.
class SilentRemote {
 public:
  SilentRemote() : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    limit_waits(listener_.get());
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(::bind(listener_.get(), generic, size), 0);
    EXPECT_EQ(::listen(listener_.get(), 64), 0);
    EXPECT_EQ(::getsockname(listener_.get(), generic, &size), 0);
    port_ = ntohs(address.sin_port);
  }
  std::string url(int number) const {
    return "https://127.0.0.1:" + std::to_string(port_) + "/" + std::to_string(number);
  }
  /// False when nobody connects.
  bool accept() {
    FileDescriptor taken(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!taken) return false;
    limit_waits(taken.get());
    connections_.push_back(std::move(taken));
    return true;
  }
  /// False when the other side stays.
  bool last_ends() {
    char bytes[4096];
    ssize_t count = 0;
    while ((count = ::recv(connections_.back().get(), bytes, sizeof bytes, 0)) > 0) {
    }
    return count == 0 || errno != EAGAIN;
  }

 private:
  static void limit_waits(int fd) {
    const timeval limit{20, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  }
  FileDescriptor listener_;
  std::uint16_t port_ = 0;
  std::list<FileDescriptor> connections_;
};

class SilentRemoteTest : public testing::Test {
 protected:
  void start(std::size_t network_workers = limits::kPoolNetworkWorkers) {
    PoolManagerOptions options;
    options.data_dir = folder_.path() / "data";
    options.network_workers = network_workers;
    manager_ = std::make_unique<PoolManager>(real_git(), options, clock_);
  }
  AllocateRequest request(const std::string& url) const {
    AllocateRequest wanted;
    wanted.repo_url = url;
    return wanted;
  }

  SilentRemote silent_;
  GitRemote remote_;
  TemporaryDirectory folder_{"necrocode-pool-test-"};
  FakeClock clock_;
  std::unique_ptr<PoolManager> manager_;
};

TEST_F(SilentRemoteTest, EightOfThemThenAHealthyRepositoryIsServed) {
  start();
  std::list<Pending<Allocation>> waiting;
  for (int i = 0; i < 8; ++i) {
    manager_->allocate(request(silent_.url(i)), waiting.emplace_back().deliver());
    ASSERT_TRUE(silent_.accept()) << i;
  }
  Pending<Allocation> healthy;
  manager_->allocate(request(remote_.url()), healthy.deliver());
  const Allocation slot = healthy.get();
  manager_->release(slot.slot_id, slot.lease_token);
  Pending<Json> idle;
  manager_->warm(pool_name_for(remote_.url()), idle.deliver());
  const Json status = idle.get();
  EXPECT_GT(status["slots"].size(), 0u);
  for (const Json& each : status["slots"].items()) EXPECT_EQ(each["state"].as_string(), "ready");
  for (const auto& pending : waiting) EXPECT_FALSE(pending.ready());
  manager_->stop();
}

TEST_F(SilentRemoteTest, NobodyWaitsForItThenItIsStoppedWhenItsWorkerIsNeeded) {
  start(1);
  Pending<Allocation> pending;
  const auto ticket = manager_->allocate(request(silent_.url(1)), pending.deliver());
  ASSERT_TRUE(silent_.accept());
  Pending<Allocation> healthy;
  manager_->allocate(request(remote_.url()), healthy.deliver());
  manager_->abandon(ticket);
  EXPECT_TRUE(silent_.last_ends());
  EXPECT_EQ(healthy.get().commit, remote_.tip());
  EXPECT_FALSE(pending.ready());
}

TEST_F(SilentRemoteTest, StoppedAndWantedAgainThenItIsTriedAgain) {
  start(1);
  Pending<Allocation> pending;
  const auto ticket = manager_->allocate(request(silent_.url(1)), pending.deliver());
  ASSERT_TRUE(silent_.accept());
  manager_->abandon(ticket);
  Pending<Allocation> other;
  const auto others = manager_->allocate(request(silent_.url(2)), other.deliver());
  Pending<Allocation> again;
  manager_->allocate(request(silent_.url(1)), again.deliver());
  EXPECT_TRUE(silent_.last_ends());
  ASSERT_TRUE(silent_.accept());  // the other
  manager_->abandon(others);
  EXPECT_TRUE(silent_.last_ends());
  EXPECT_TRUE(silent_.accept());
  EXPECT_FALSE(again.ready());
  manager_->stop();
}

}  // namespace
}  // namespace necrocode::pool::test
