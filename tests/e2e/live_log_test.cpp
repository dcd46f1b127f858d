// Logs of the shipped service: `artifact cat --follow`, and what is left when it is killed.
#include <atomic>
#include <thread>

#include "e2e/services_fixture.hpp"
#include "necrocode/base/digest.hpp"

namespace necrocode::test {
namespace {

using namespace std::chrono_literals;

net::ServiceOptions at(const std::string& url) {
  net::ServiceOptions options;
  options.base_url = url;
  options.retry.retries = 0;
  return options;
}

class LiveLog : public EndToEnd {
 protected:
  void SetUp() override {
    url_ = serve_tapped();
    store_ = std::make_unique<ArtifactStoreClient>(at(url_));
    uri_ = store_->open_log("log").uri;
    store_->append_log(uri_, 0, std::string("one\n\0\x1b\n", 7));
  }
  std::unique_ptr<Program> cat() {
    return start({"artifact", "cat", uri_, "--follow", "--url", url_});
  }

  std::string url_;
  std::unique_ptr<ArtifactStoreClient> store_;
  std::string uri_;
};

TEST_F(LiveLog, CatFollowsThenBytesAsTheyAreUntilTheSeal) {
  const auto following = cat();
  EXPECT_EQ(following->read_line(), "one");
  store_->append_log(uri_, 7, "two\n");
  EXPECT_EQ(following->read_line(), std::string("\0\x1b", 2));
  EXPECT_EQ(following->read_line(), "two");
  store_->seal_log(uri_, 11, "three");
  std::string rest;
  EXPECT_EQ(following->wait(&rest), 0);
  EXPECT_EQ(rest, "three");
}

TEST_F(LiveLog, CatIsStoppedThenItsExitCodeSaysSo) {
  const auto following = cat();
  EXPECT_EQ(following->read_line(), "one");
  following->signal(SIGINT);
  EXPECT_EQ(following->wait(), 5);
}

TEST_F(LiveLog, CatLosesItsReaderThenItEndsQuietly) {
  const std::string command =
      "{ \"$0\" artifact cat \"$1\" --follow --url \"$2\"; echo $? >&2; }"
      " 2>\"$3\" | head -n 1";
  Program shell({"sh", "-c", command, NECROCODE_BINARY, uri_, url_, path("end").string()},
                environment(), path("stderr"));
  EXPECT_EQ(shell.read_line(), "one");
  // The first of these finds the reader gone.
  for (std::uint64_t size = 7; read_file(path("end"), 1'000).empty() && size < 5'000; ++size) {
    store_->append_log(uri_, size, "x");
    std::this_thread::yield();
  }
  EXPECT_EQ(shell.wait(), 0);
  EXPECT_EQ(read_file(path("end"), 1'000), "0\n");
}

TEST_F(LiveLog, RemovedWhileCatFollowsThenItFails) {
  const auto following = cat();
  EXPECT_EQ(following->read_line(), "one");
  store_->remove(store_->get_metadata(uri_).id);
  EXPECT_EQ(following->wait(), 3);
}

class KilledStore : public EndToEnd {};

TEST_F(KilledStore, InTheMiddleOfAppendsThenItHasWhatItTookAndSealsIt) {
  std::string whole;
  while (whole.size() < 3'000'000) whole += std::to_string(whole.size()) + "\n";
  ArtifactStoreClient before(at(serve()));
  const std::string uri = before.open_log("log", Json::object(), 2s).uri;
  std::atomic<std::uint64_t> taken = 0;
  std::jthread writing([&] {
    try {
      while (taken + 4'000 < whole.size()) {
        taken = before.append_log(uri, taken, std::string_view(whole).substr(taken, 4'000));
      }
    } catch (const Unavailable&) {  // it is dead
    }
  });
  ASSERT_TRUE(eventually([&] { return taken > 200'000; }));
  services_->signal(SIGKILL);
  services_->wait();
  writing.join();
  ASSERT_LT(taken + 4'000, whole.size()) << "it was killed too late";

  ArtifactStoreClient after(at(serve()));
  const std::string path = uri.substr(uri.find("/artifacts/"));
  const std::uint64_t size = after.get_metadata(path).size_bytes;
  EXPECT_GE(size, taken);
  EXPECT_LE(size, taken + 4'000);
  // The append whose answer never came is told again.
  EXPECT_EQ(after.append_log(path, taken, std::string_view(whole).substr(taken, 4'000)),
            taken + 4'000);
  std::string came;
  EXPECT_TRUE(after.follow(path, [&](std::string_view bytes) {
    came += bytes;
    return true;
  }));
  EXPECT_EQ(came, whole.substr(0, taken + 4'000));
  EXPECT_EQ(after.get_metadata(path).sha256, sha256_hex(came)) << "sealed by its lease";
}

}  // namespace
}  // namespace necrocode::test
