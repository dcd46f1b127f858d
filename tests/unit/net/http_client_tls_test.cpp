// The client over TLS, against OpenSSL's own server: whom it trusts, and that a connection that
// breaks under a write ends the call and not the process.
#include <signal.h>
#include <sys/wait.h>

#include "http_client_fixture.hpp"
#include "support/program.hpp"

namespace necrocode::net {
namespace {

using test::Program;

/// Makes a certificate for 127.0.0.1 and serves with it.
class HttpClientTlsTest : public testing::Test {
 protected:
  void SetUp() override {
    std::vector<std::string> make = {
        "openssl", "req",   "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-nodes",  "-days", "2"};
    make.insert(make.end(),
                {"-subj", "/CN=necrocode test", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout",
                 path("key.pem"), "-out", certificate()});
    ASSERT_EQ(Program(make, environment(), path("stderr")).wait(), 0);
    server_ = std::make_unique<Program>(
        std::vector<std::string>{"openssl", "s_server", "-accept", "127.0.0.1:0", "-cert",
                                 certificate(), "-key", path("key.pem"), "-www"},
        environment(), path("stderr"));
    const auto line = server_->read_until("ACCEPT");
    ASSERT_TRUE(line.has_value());
    const std::size_t colon = line->rfind(':');
    url_ = "https://127.0.0.1:" + std::string(trim(line->substr(colon + 1))) + "/";
  }
  std::string path(const char* name) const { return (folder_.path() / name).string(); }
  std::string certificate() const { return path("certificate.pem"); }
  std::vector<std::string> environment() const {
    return {std::string("PATH=") + std::getenv("PATH"), "HOME=" + folder_.path().string()};
  }
  std::shared_ptr<HttpClient> client(const std::string& ca_file) const {
    HttpClientOptions options;
    options.ca_file = ca_file;
    return make_curl_http_client(std::move(options));
  }
  static TransportFailure failure(HttpClient& client, const HttpRequest& request) {
    try {
      client.send(request, {});
    } catch (const TransportError& error) {
      return error.failure();
    }
    ADD_FAILURE() << "was answered";
    return TransportFailure::kInvalid;
  }

  TemporaryDirectory folder_{"necrocode-tls-"};
  std::unique_ptr<Program> server_;
  std::string url_;
};

TEST_F(HttpClientTlsTest, TrustsTheGivenAuthority) {
  const auto trusting = client(certificate());
  for (int i = 0; i < 3; ++i) {
    const HttpResponse response = trusting->send(get(url_), {});
    EXPECT_EQ(response.status, 200);
    EXPECT_THAT(response.body, testing::HasSubstr("TLSv1.3"));
  }
}

TEST_F(HttpClientTlsTest, TrustsNobodyElse) {
  EXPECT_EQ(failure(*client(""), get(url_)), TransportFailure::kTls);
  EXPECT_EQ(failure(*client(path("key.pem")), get(url_)), TransportFailure::kTls);
  EXPECT_EQ(failure(*client(path("none.pem")), get(url_)), TransportFailure::kTls);
  // The right authority, and a name that the certificate is not for.
  const std::string port = url_.substr(url_.rfind(':'));
  EXPECT_EQ(failure(*client(certificate()), get("https://localhost" + port)),
            TransportFailure::kTls);
}

TEST_F(HttpClientTlsTest, AServerThatGoesWhileWeWriteEndsTheCallAndNotTheProcess) {
  // The server answers after the head and closes; the rest of the body meets a closed connection.
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::signal(SIGPIPE, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    ::pthread_sigmask(SIG_SETMASK, &none, nullptr);
    const auto trusting = client(certificate());
    HttpRequest request = post(url_, std::string(8 * limits::kMiB, 'x'));
    request.method = "GET";  // the only one that this server answers
    for (int i = 0; i < 20; ++i) {
      try {
        trusting->send(request, {});
      } catch (const TransportError&) {
        continue;  // what it is does not matter here
      }
    }
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status)) << "killed by signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace necrocode::net
