// A file of its own: the Content-Security-Policy of this server allows no inline script.
"use strict";

SwaggerUIBundle({
  dom_id: "#documentation",
  url: "openapi.json",
  deepLinking: true,
  // `docs?open=all` shows every operation in full, for printing and for searching in the page
  docExpansion: new URLSearchParams(location.search).get("open") === "all" ? "full" : "list",
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  filter: true,
  persistAuthorization: false, // a credential is not to outlive the page
  validatorUrl: null, // the usual one is another host
});
