package rig;

/** One of the interfaces. */
public interface Orders {
  String order(String what);
}
