// A file of its own: the Content-Security-Policy of this server allows no inline script.
"use strict";

SwaggerUIBundle({
  dom_id: "#documentation",
  url: "openapi.json",
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  filter: true,
  persistAuthorization: false, // a credential is not to outlive the page
  validatorUrl: null, // the usual one is another host
});
