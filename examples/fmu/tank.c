/* A tank as an FMU for co-simulation of FMI 2.0: water flows in, and out through a valve.
 *
 * area * level' = inflow - opening * conductance * sqrt(level), by Runge-Kutta's method of the
 * fourth order in steps of 0.1 s at most.  `high` is level > limit.
 * The declarations are the few of the standard that a model without events needs.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { OK, ERROR = 3 };
enum { LEVEL, INFLOW, OPENING, AREA, CONDUCTANCE, LIMIT, HIGH }; /* value references */
#define TOKEN "{tank-example}" /* guid in modelDescription.xml */
#define LONGEST_STEP 0.1

typedef struct {
  double values[HIGH];
} tank;

static double rate(const tank *me, double level) {
  double out = me->values[OPENING] * me->values[CONDUCTANCE] * sqrt(fmax(level, 0.0));
  return (me->values[INFLOW] - out) / me->values[AREA];
}

static void advance(tank *me, double h) {
  double level = me->values[LEVEL];
  double k1 = rate(me, level), k2 = rate(me, level + h / 2 * k1);
  double k3 = rate(me, level + h / 2 * k2), k4 = rate(me, level + h * k3);
  me->values[LEVEL] = fmax(level + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), 0.0);
}

const char *fmi2GetTypesPlatform(void) { return "default"; }
const char *fmi2GetVersion(void) { return "2.0"; }

void *fmi2Instantiate(const char *name, int kind, const char *token, const char *resources,
                      const void *functions, int visible, int logging) {
  (void)name, (void)kind, (void)resources, (void)functions, (void)visible, (void)logging;
  tank *me = strcmp(token, TOKEN) == 0 ? calloc(1, sizeof *me) : NULL;
  if (me == NULL) return NULL;
  me->values[LEVEL] = 1.0, me->values[INFLOW] = 0.02, me->values[OPENING] = 0.5;
  me->values[AREA] = 0.5, me->values[CONDUCTANCE] = 0.04, me->values[LIMIT] = 2.0;
  return me;
}

int fmi2DoStep(tank *me, double time, double duration, int final) {
  (void)time, (void)final;
  int count = (int)ceil(duration / LONGEST_STEP - 1e-9);
  for (int at = 0; at < count; at++) advance(me, duration / count);
  return OK;
}

int fmi2GetReal(tank *me, const unsigned *which, size_t count, double *to) {
  for (size_t at = 0; at < count; at++) {
    if (which[at] >= HIGH) return ERROR;
    to[at] = me->values[which[at]];
  }
  return OK;
}

int fmi2SetReal(tank *me, const unsigned *which, size_t count, const double *from) {
  for (size_t at = 0; at < count; at++) {
    if (which[at] >= HIGH) return ERROR;
    me->values[which[at]] = from[at];
  }
  return OK;
}

int fmi2GetBoolean(tank *me, const unsigned *which, size_t count, int *to) {
  for (size_t at = 0; at < count; at++) {
    if (which[at] != HIGH) return ERROR;
    to[at] = me->values[LEVEL] > me->values[LIMIT];
  }
  return OK;
}

int fmi2SetupExperiment(tank *me, int tolerant, double tolerance, double start, int ends, double end) {
  (void)me, (void)tolerant, (void)tolerance, (void)start, (void)ends, (void)end;
  return OK;
}

int fmi2EnterInitializationMode(tank *me) { (void)me; return OK; }
int fmi2ExitInitializationMode(tank *me) { (void)me; return OK; }
int fmi2Terminate(tank *me) { (void)me; return OK; }
void fmi2FreeInstance(tank *me) { free(me); }
