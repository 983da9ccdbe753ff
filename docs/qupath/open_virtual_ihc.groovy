/**
 * Prepares a virtual IHC slide in QuPath 0.5 or 0.6: image type Brightfield (H-DAB), the stain vectors that the drawn
 * IHC and the built-in generators are made of, and the tissue outlines from the GeoJSON file beside the slide, when there is one.
 *
 * Open the virtual slide, then Automate > Script editor > open this file > Run. It may be run for a whole project, and
 * run again: outlines that are there already are left as they are.
 *
 * Research use only. The stain is synthetic.
 */
import groovy.json.JsonSlurper
import java.awt.geom.AffineTransform
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.Paths
import qupath.lib.io.PathIO
import qupath.lib.objects.PathObjectTools

import static qupath.lib.gui.scripting.QPEx.*

setImageType('BRIGHTFIELD_H_DAB')
// Of unit length: the counterstain of IHC slides, and DAB as Ruifrok and Johnston (2001) measured it.
setColorDeconvolutionStains('{"Name" : "H-DAB virtual", ' +
        '"Stain 1" : "Hematoxylin", "Values 1" : "0.701 0.621 0.351", ' +
        '"Stain 2" : "DAB", "Values 2" : "0.268 0.570 0.776", ' +
        '"Background" : "255 255 255"}')

def server = getCurrentServer()
Path slide = server.getURIs().isEmpty() ? null : Paths.get(server.getURIs().iterator().next().with { new URI(it.scheme, it.host, it.path, null) })
Path outlines = slide == null ? null : namesBeside(slide).find { Files.isRegularFile(it) }

if (outlines == null) {
    println "Image type and stains are set. No tissue outlines lie beside the slide; make them with: wsi-ihc tissue SLIDE -o SLIDE.geojson"
} else if (getAnnotationObjects().any { it.getPathClass()?.getName() == 'Tissue' }) {
    println 'Image type and stains are set. The tissue outlines are there already.'
} else {
    double scale = scaleTo(server.getWidth(), outlines)
    def transform = AffineTransform.getScaleInstance(scale, scale)
    def pieces = PathIO.readObjects(outlines).collect { PathObjectTools.transformObject(it, transform, true) }
    pieces.each { it.setLocked(true) }
    addObjects(pieces)
    println "Image type and stains are set. ${pieces.size()} pieces of tissue from ${outlines.getFileName()}"
}

/** slide_ihc.ome.tiff: slide_ihc.geojson, else slide.geojson. */
static List<Path> namesBeside(Path slide) {
    def stem = slide.getFileName().toString().replaceFirst(/(?i)(\.ome)?\.[^.]+$/, '')
    [stem, stem.replaceFirst(/_ihc$/, '')].unique().collect { slide.resolveSibling(it + '.geojson') }
}

/** Outlines are drawn in pixels of the H&E's level 0; the virtual slide may be coarser. The file says how wide the H&E is. */
static double scaleTo(int width, Path outlines) {
    def document = new JsonSlurper().parse(outlines.toFile())
    def features = document instanceof List ? document : (document.features ?: [document])
    def drawnOn = features.findResult { it?.properties?.metadata?.slide_width }
    drawnOn ? width / (drawnOn as double) : 1.0d
}
