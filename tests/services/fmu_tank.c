/* A first-order system for the tests, as an FMU for co-simulation of FMI 2.0 or, with -DFMI3, 3.0.
 *
 * level' = (gain * inflow - level) / time_constant, solved exactly over each step; `steps` counts
 * the steps, `full` is level > 0.5.  `fault` makes it go wrong once a step ends at or after `at`.
 * The declarations are the few of the standard that are used here.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>
#include <sys/socket.h>
#include <unistd.h>

#ifdef FMI3
#include <stdbool.h>
#include <stdint.h>
typedef bool flag;
typedef int64_t whole;
#define NAME(name) fmi3##name
#else
typedef int flag;
typedef int whole;
#define NAME(name) fmi2##name
#endif

enum { OK, WARNING, DISCARD, ERROR };
enum { LEVEL, INFLOW, GAIN, TIME_CONSTANT, AT, FAULT, STEPS, FULL, NOTE };
enum { NONE, SEGFAULT, ENDLESS, MEMORY, FILE_SIZE, FAILS, ABORTS, PRINTS, NETWORK, READS, EXITS,
       RESERVES, SLEEPS, NOT_A_NUMBER, FORKS };

#ifdef FMI3
typedef void (*logger)(void *, int, const char *, const char *);
#else
typedef struct {
  void (*log)(void *, const char *, int, const char *, const char *, ...);
  void *allocate, *release, *finished, *environment;
} callbacks;
#endif

typedef struct {
  double values[AT + 1];
  whole fault, steps;
  char note[64];
  double time;
#ifdef FMI3
  logger log;
#else
  const callbacks *functions;
#endif
} tank;

static void say(tank *me, int status) {
#ifdef FMI3
  char text[100];
  snprintf(text, sizeof text, "level %g at step %d of %s", me->values[LEVEL], (int)me->steps, me->note);
  me->log(NULL, status, "events", text);
#else
  me->functions->log(NULL, "tank", status, "events", "level %g at step %d of %s", me->values[LEVEL],
                     me->steps, me->note);
#endif
}

static int overflow(int depth) {
  volatile char room[4096];
  room[0] = (char)depth;
  return overflow(depth + 1) + room[0];
}

static int go_wrong(tank *me) {
  char text[4096];
  switch (me->fault) {
  case SEGFAULT: *(volatile int *)8 = 1; break;
  case ENDLESS: for (;;) __asm__(""); break;
  case SLEEPS: for (;;) pause(); break;
  case MEMORY: for (;;) memset(malloc(16 << 20), 1, 16 << 20); break;
  case RESERVES: for (;;) *(volatile char *)malloc(64 << 20) = 1; break;
  case ABORTS: abort();
  case EXITS: exit(3);
  case FORKS: for (;;) if (fork() == 0) for (;;) pause(); else if (++me->steps > 200) return ERROR; break;
  case FILE_SIZE: {
    FILE *file = fopen("huge", "w");
    memset(text, 'x', sizeof text);
    for (;;) fwrite(text, 1, sizeof text, file);
  }
  case PRINTS: for (;;) puts("so much to say"); break;
  case NETWORK: {
    struct sockaddr address = {.sa_family = AF_INET, .sa_data = {0, 9, 127, 0, 0, 1}};
    int end = socket(AF_INET, SOCK_DGRAM, 0);
    me->values[LEVEL] = sendto(end, "x", 1, 0, &address, sizeof address);
    break;
  }
  case READS: me->values[LEVEL] = (fopen(me->note, "r") != NULL) + (fopen(me->note, "a") != NULL); break;
  case NOT_A_NUMBER: me->values[LEVEL] = NAN; break;
  case FAILS: say(me, ERROR); return ERROR;
  default: return overflow(0);
  }
  return OK;
}

static int step(tank *me, double time, double duration) {
  double end = me->values[GAIN] * me->values[INFLOW];
  me->time = time + duration;
  me->values[LEVEL] = end + (me->values[LEVEL] - end) * exp(-duration / me->values[TIME_CONSTANT]);
  me->steps++;
  return me->fault != NONE && me->time >= me->values[AT] - 1e-9 ? go_wrong(me) : OK;
}

static tank *made(void) {
  tank *me = calloc(1, sizeof *me);
  me->values[GAIN] = 1;
  me->values[TIME_CONSTANT] = 2;
  return me;
}

#ifdef FMI3
#define SIZE , size_t size
#else
#define SIZE
#endif
#define ACCESS(TYPE, CTYPE, READ, WRITE)                                                         \
  int NAME(Get##TYPE)(tank * me, const unsigned *which, size_t count, CTYPE *to SIZE) {          \
    for (size_t at = 0; at < count; at++) { unsigned each = which[at]; to[at] = READ; }          \
    return OK;                                                                                   \
  }                                                                                              \
  int NAME(Set##TYPE)(tank * me, const unsigned *which, size_t count, const CTYPE *from SIZE) {  \
    for (size_t at = 0; at < count; at++) { unsigned each = which[at]; (void)each; WRITE; }      \
    return OK;                                                                                   \
  }

#ifdef FMI3
ACCESS(Float64, double, me->values[each], me->values[each] = from[at])
ACCESS(Int64, int64_t, each == STEPS ? me->steps : me->fault, me->fault = from[at])
ACCESS(Boolean, bool, me->values[LEVEL] > 0.5 + 0 * each, (void)from)
#else
ACCESS(Real, double, me->values[each], me->values[each] = from[at])
ACCESS(Integer, int, each == STEPS ? me->steps : me->fault, me->fault = from[at])
ACCESS(Boolean, int, me->values[LEVEL] > 0.5 + 0 * each, (void)from)
#endif
ACCESS(String, const char *, each == NOTE ? me->note : "",
       snprintf(me->note, sizeof me->note, "%s", from[at]))

#ifdef FMI3
tank *fmi3InstantiateCoSimulation(const char *name, const char *token, const char *resources, bool visible,
                                  bool logging, bool events, bool early, const unsigned *needed,
                                  size_t count, void *environment, logger log, void *update) {
  (void)name, (void)resources, (void)visible, (void)logging, (void)events, (void)early, (void)needed;
  (void)count, (void)environment, (void)update;
  if (strcmp(token, "{tank}") != 0) return NULL;
  tank *me = made();
  me->log = log;
  return me;
}
int fmi3EnterInitializationMode(tank *me, bool tolerated, double tolerance, double start, bool stops,
                                double stop) {
  (void)tolerated, (void)tolerance, (void)stops, (void)stop;
  me->time = start;
  return OK;
}
int fmi3DoStep(tank *me, double time, double duration, bool past, bool *events, bool *ended, bool *early,
               double *last) {
  (void)past;
  *events = *ended = *early = false;
  *last = time + duration;
  return step(me, time, duration);
}
#else
tank *fmi2Instantiate(const char *name, int type, const char *token, const char *resources,
                      const callbacks *functions, int visible, int logging) {
  (void)name, (void)resources, (void)visible, (void)logging;
  if (type != 1 || strcmp(token, "{tank}") != 0) return NULL;
  tank *me = made();
  me->functions = functions;
  return me;
}
int fmi2SetupExperiment(tank *me, int tolerated, double tolerance, double start, int stops, double stop) {
  (void)tolerated, (void)tolerance, (void)stops, (void)stop;
  me->time = start;
  return OK;
}
int fmi2EnterInitializationMode(tank *me) { (void)me; return OK; }
int fmi2DoStep(tank *me, double time, double duration, int past) { (void)past; return step(me, time, duration); }
#endif
int NAME(ExitInitializationMode)(tank *me) { (void)me; return OK; }
int NAME(Terminate)(tank *me) { (void)me; return OK; }
void NAME(FreeInstance)(tank *me) { free(me); }
