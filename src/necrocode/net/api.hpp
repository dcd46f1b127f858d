// Api: operations declared where their handlers are registered, and told to clients as OpenAPI 3.1.
// What routes a request, what reads it (describe_fields, describe_query) and what documents it are
// one declaration. Nothing is checked here while requests are served: the readers do that.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "necrocode/base/json.hpp"
#include "necrocode/net/http_server.hpp"

namespace necrocode::net {

/// An answer that is no error.
struct Answer {
  int status = 200;
  Json schema{};                       ///< null: no body
  std::vector<std::string> headers{};  ///< always there, beside X-Request-Id
  std::string media_type = "application/json";
};

struct Operation {
  std::string method;
  std::string path;  ///< as HttpServer::route has it
  std::string id;    ///< unique, for generated clients
  std::string summary;
  std::vector<std::string> headers{};  ///< of the request, understood beside those of all
  Json query = Json::array();          ///< describe_query()
  Json body{};                         ///< a schema; null: none
  std::string body_type = "application/json";
  std::vector<Answer> answers{};
  /// problem+json, beside those that any request may get. With a body 413 and 422 are always among
  /// them, with a query 422.
  std::vector<int> errors{};
};

/// Not thread-safe; used before the server's start().
class Api {
 public:
  explicit Api(HttpServer& server) : server_(server) {}
  Api(const Api&) = delete;
  Api& operator=(const Api&) = delete;

  /// The operations that follow belong to this part of the interface.
  void begin_part(std::string name, std::string about);
  void route(Operation operation, Handler handler, RouteOptions options = {});
  /// What schema::ref(name) means.
  void define(std::string name, Json schema);
  /// The OpenAPI 3.1 document of all operations so far, each under the tag of its part.
  Json document(std::string_view title, std::string_view version) const;

 private:
  HttpServer& server_;
  struct Part {
    std::string name, about;
    std::vector<Operation> operations;
  };
  std::vector<Part> parts_;
  std::vector<std::pair<std::string, Json>> schemas_;
};

}  // namespace necrocode::net
