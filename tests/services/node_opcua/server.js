// An OPC UA server on loopback for tests, on node-opcua's own stack.
//
// node server.js PACKAGES PORT CONTROL FOLDER [SECURITY]: the folder of node_modules, the ports of OPC UA and of
// commands, where its keys may lie.  SECURITY is JSON: {"certificate": file, "key": file, "uri": its application's,
// "modes": [...], "policies": [...], "users": {name: password}}; with users, nobody else gets in.  A command is one line of JSON, answered with an empty one when it is done:
//   {"write": [[name, value, milliseconds, ticks], ...]}  ticks: 100 ns beyond the milliseconds
//   {"delete": name}
"use strict";

const { createRequire } = require("node:module");
const { createServer } = require("node:net");
const { createInterface } = require("node:readline");

const [packages, port, control, folder, security] = process.argv.slice(2);
const from = createRequire(`${packages}/`);
const { OPCUAServer } = from("node-opcua-server");
const { OPCUACertificateManager } = from("node-opcua-certificate-manager");
const { DataType, Variant, VariantArrayType } = from("node-opcua-variant");
const { DataValue } = from("node-opcua-data-value");
const { StatusCodes } = from("node-opcua-status-code");
const { MessageSecurityMode, SecurityPolicy } = from("node-opcua-secure-channel");

const URI = "urn:test:machine";
const PICOSECONDS_A_TICK = 100000;
const TYPES = {
  Boolean: false,
  SByte: 0,
  Byte: 0,
  Int16: 0,
  UInt16: 0,
  Int32: 0,
  UInt32: 0,
  Int64: [0, 0],
  UInt64: [0, 0],
  Float: 0,
  Double: 0,
  String: "",
  Guid: "00000000-0000-0000-0000-000000000000",
  DateTime: new Date(0),
  LocalizedText: { text: "" },
};
const DOUBLES = 900;
const COMPUTED_EACH_MS = 250;

function scalar(dataType, value) {
  return new Variant({ dataType: DataType[dataType], arrayType: VariantArrayType.Scalar, value });
}

function addVariables(server) {
  const space = server.engine.addressSpace;
  const namespace = space.registerNamespace(URI);
  const types = { ...TYPES };
  for (let number = 0; number < DOUBLES; number += 1) types[`n${number}`] = 0;
  const variables = {};
  for (const [name, value] of Object.entries(types)) {
    const dataType = name in TYPES ? name : "Double";
    variables[name] = namespace.addVariable({
      organizedBy: space.rootFolder.objects,
      browseName: name,
      nodeId: `s=${name}`,
      dataType,
      minimumSamplingInterval: 0,
      value: scalar(dataType, value),
    });
    variables[name].setValueFromSource(scalar(dataType, value), StatusCodes.BadWaitingForInitialData);
  }
  namespace.addVariable({
    organizedBy: space.rootFolder.objects,
    browseName: "computed",
    nodeId: "s=computed",
    dataType: "Double",
    minimumSamplingInterval: 0,
    value: { get: () => scalar("Double", Math.floor(Date.now() / COMPUTED_EACH_MS)) },
  });
  return variables;
}

function write(variables, rows) {
  for (const [name, value, milliseconds, ticks] of rows) {
    const plain = name === "DateTime" ? new Date(value) : value;
    const told = scalar(name in TYPES ? name : "Double", plain);
    const picoseconds = ticks * PICOSECONDS_A_TICK;
    const moment = new Date(milliseconds);
    // setValueFromSource would leave the picoseconds out
    variables[name]._internal_set_dataValue(
      new DataValue({ value: told, statusCode: StatusCodes.Good, sourceTimestamp: moment, sourcePicoseconds: picoseconds }),
    );
  }
}

function secured() {
  if (!security) return { securityModes: [MessageSecurityMode.None], securityPolicies: [SecurityPolicy.None] };
  const told = JSON.parse(security);
  return {
    certificateFile: told.certificate,
    privateKeyFile: told.key,
    serverInfo: { applicationUri: told.uri },
    securityModes: told.modes.map((name) => MessageSecurityMode[name]),
    securityPolicies: told.policies.map((name) => SecurityPolicy[name]),
    allowAnonymous: Object.keys(told.users).length === 0,
    userManager: { isValidUser: (name, password) => told.users[name] === password },
  };
}

async function main() {
  const certificates = new OPCUACertificateManager({ rootFolder: folder, automaticallyAcceptUnknownCertificate: true });
  await certificates.initialize();
  const server = new OPCUAServer({
    port: Number(port),
    host: "127.0.0.1",
    hostname: "127.0.0.1",
    allowAnonymous: true,
    serverCertificateManager: certificates,
    userCertificateManager: certificates,
    disableDiscovery: !security, // secured, it tells its endpoints to whoever asks nevertheless
    serverCapabilities: { minSupportedSampleRate: 0 }, // otherwise it lets values go that come within 50 ms
    ...secured(),
  });
  await server.initialize();
  const variables = addVariables(server);
  await server.start();
  const obey = (line, answer) => {
    const command = JSON.parse(line);
    if (command.write) write(variables, command.write);
    if (command.delete) server.engine.addressSpace.deleteNode(variables[command.delete]);
    answer.write("\n");
  };
  const door = createServer((socket) => createInterface({ input: socket }).on("line", (line) => obey(line, socket)));
  door.listen(Number(control), "127.0.0.1");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
