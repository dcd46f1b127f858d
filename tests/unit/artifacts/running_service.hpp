// An ArtifactService on a real server and a real store, for tests.
#pragma once

#include <filesystem>
#include <memory>

#include "necrocode/artifacts/filesystem_store.hpp"
#include "necrocode/artifacts/service.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/net/http_client.hpp"
#include "necrocode/net/http_server.hpp"

namespace necrocode::artifacts {

class RunningService {
 public:
  RunningService()
      : service_(std::make_unique<FilesystemArtifactStore>(folder_.path() / "artifacts"), "") {
    net::Api api(server_);
    service_.add_routes(api);
    server_.start();
    service_.set_public_url(server_.url());
  }

  std::string url() const { return server_.url(); }
  std::uint16_t port() const { return server_.port(); }
  ArtifactService& service() { return service_; }
  std::filesystem::path root() const { return folder_.path() / "artifacts"; }

  std::vector<std::filesystem::path> files(const char* below) const {
    std::vector<std::filesystem::path> found;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root() / below)) {
      if (!entry.is_directory()) found.push_back(entry.path());
    }
    return found;
  }

  net::HttpResponse send(std::string method, const std::string& target, net::Headers headers = {},
                         std::string body = {}) {
    net::HttpRequest request;
    request.method = std::move(method);
    request.url = target.starts_with("http") ? target : url() + target;
    request.headers = std::move(headers);
    request.body = std::move(body);
    return http_->send(request, {});
  }

  // The form as plain HTTP libraries write it; each part: its header's parameters, and its bytes.
  net::HttpResponse post_form(const std::vector<std::pair<std::string, std::string>>& parts,
                              net::Headers headers = {}) {
    headers.set("Content-Type", "multipart/form-data; boundary=XyZ");
    return send("POST", "/artifacts", std::move(headers), form_body(parts));
  }
  static std::string form_body(const std::vector<std::pair<std::string, std::string>>& parts) {
    std::string body;
    for (const auto& [parameters, bytes] : parts) {
      body +=
          "--XyZ\r\nContent-Disposition: form-data; " + parameters + "\r\n\r\n" + bytes + "\r\n";
    }
    return body + "--XyZ--\r\n";
  }

 private:
  TemporaryDirectory folder_;
  ArtifactService service_;
  net::HttpServer server_;  // stops before the service goes
  std::shared_ptr<net::HttpClient> http_ = net::make_curl_http_client();
};

}  // namespace necrocode::artifacts
